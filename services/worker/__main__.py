"""`python -m services.worker`."""

from services.mesh.options import program
from services.worker.command import worker

program(worker)()
