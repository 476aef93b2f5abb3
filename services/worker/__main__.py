"""`python -m services.worker`."""

import typer

from services.worker.command import worker

typer.run(worker)
