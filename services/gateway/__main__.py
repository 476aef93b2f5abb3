"""`python -m services.gateway`."""

import typer

from services.gateway.command import gateway

typer.run(gateway)
