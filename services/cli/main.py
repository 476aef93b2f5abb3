"""`tokenmesh`: every command of the mesh in one program."""

from __future__ import annotations

import typer

from services.cli import draining, listing
from services.cli.chat.command import chat
from services.cli.keys.command import keys
from services.cli.up.command import up
from services.controller.command import controller
from services.gateway.command import gateway
from services.mesh.options import ENVIRONMENT_PREFIX, HELP_OPTIONS
from services.worker.command import worker

app = typer.Typer(
    name="tokenmesh",
    help="Serves language models as a mesh of gRPC services, with Envoy at the edge.\n\n"
    "Begin with [bold]tokenmesh up[/], then [bold]tokenmesh chat[/]. Every option can also be set "
    "by an environment variable: TOKENMESH_COMMAND_OPTION, such as TOKENMESH_UP_PORT.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_show_locals=False,
    context_settings={
        "auto_envvar_prefix": ENVIRONMENT_PREFIX,
        "help_option_names": HELP_OPTIONS,
    },
)

USE = "Use a mesh"
OPERATE = "Operate a mesh"
SERVICES = "Run one service"

app.command(rich_help_panel=USE)(up)
app.command(rich_help_panel=USE)(chat)
app.command(rich_help_panel=USE)(listing.models)
app.command(rich_help_panel=OPERATE)(listing.workers)
app.command(rich_help_panel=OPERATE)(draining.drain)
app.command(rich_help_panel=OPERATE)(draining.resume)
app.add_typer(keys, name="keys", rich_help_panel=OPERATE)
app.command(rich_help_panel=SERVICES)(controller)
app.command(rich_help_panel=SERVICES)(worker)
app.command(rich_help_panel=SERVICES)(gateway)


def main() -> None:
    """The entry point of the program `tokenmesh`."""
    app()


if __name__ == "__main__":
    main()
