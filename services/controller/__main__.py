"""`python -m services.controller`."""

from services.controller.command import controller
from services.mesh.options import program

program(controller)()
