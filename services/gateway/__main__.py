"""`python -m services.gateway`."""

from services.gateway.command import gateway
from services.mesh.options import program

program(gateway)()
