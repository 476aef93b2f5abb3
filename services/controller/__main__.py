"""`python -m services.controller`."""

import typer

from services.controller.command import controller

typer.run(controller)
