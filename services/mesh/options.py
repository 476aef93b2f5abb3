"""What the command lines of all services have in common: options, panels of the help, variables.

Every option can also be set by an environment variable, which is called after the command and the
option: `--log-level` of `tokenmesh worker` is TOKENMESH_WORKER_LOG_LEVEL.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from services.mesh import logs

ENVIRONMENT_PREFIX = "TOKENMESH"
HELP_OPTIONS = ["-h", "--help"]
DEFAULT_CONTROLLER = "127.0.0.1:21001"

API_KEYS_VARIABLE = "TOKENMESH_API_KEYS"
API_KEYS_FILE_VARIABLE = "TOKENMESH_API_KEYS_FILE"

NetworkOption = partial(typer.Option, rich_help_panel="Network")
KeyOption = partial(typer.Option, rich_help_panel="API keys")
LimitOption = partial(typer.Option, rich_help_panel="Limits")
ProcessOption = partial(typer.Option, rich_help_panel="Process")

Host = Annotated[
    str,
    NetworkOption(
        help="Address to listen on. The port asks for no key: beyond this machine it needs "
        "--allow-anonymous."
    ),
]
ApiKeys = Annotated[
    str | None,
    KeyOption(
        metavar="KEYS",
        envvar=API_KEYS_VARIABLE,
        help="Keys that clients must have, split by commas; each is good for everything. Rather "
        f"set {API_KEYS_VARIABLE}: a command line shows to everybody on the machine.",
    ),
]
ApiKeysFile = Annotated[
    Path | None,
    KeyOption(
        metavar="FILE",
        envvar=API_KEYS_FILE_VARIABLE,
        help="YAML file of hashed keys with their models and rates, which tokenmesh keys writes; "
        "read anew when it changes.",
    ),
]
AllowAnonymous = Annotated[
    bool,
    NetworkOption(
        "--allow-anonymous",
        help="Listen beyond this machine although anybody who reaches the port may use it. For "
        "networks that are closed to others.",
    ),
]
Port = Annotated[int, NetworkOption(help="Port for gRPC. 0 takes a free one.")]
Controllers = Annotated[
    list[str] | None,
    NetworkOption(
        "--controller",
        metavar="HOST:PORT",
        help="A controller to connect to; repeat it for several, with spaces between them in the "
        f"variable. {DEFAULT_CONTROLLER} by default.",
    ),
]
GracePeriod = Annotated[
    float,
    LimitOption(help="Seconds that running requests may go on after SIGTERM or Ctrl-C."),
]
MetricsPort = Annotated[
    int,
    ProcessOption(
        help="Port for Prometheus, at /metrics. 0 takes a free one; the log tells which."
    ),
]
ReadyFile = Annotated[
    Path | None,
    ProcessOption(
        help="File to write, as JSON, once the service is ready: process id and addresses."
    ),
]
LogLevel = Annotated[logs.Level, ProcessOption(help="The least that is logged.")]
LogFormat = Annotated[
    logs.LogFormat,
    ProcessOption(
        help="console is for people, json for machines; auto takes what fits standard error."
    ),
]


def program(command: Callable[..., None]) -> typer.Typer:
    """The program `python -m services.NAME`, from the function that is `tokenmesh NAME`.

    It has the same options, set by the same environment variables.
    """
    # A traceback that shows variables would show keys.
    app = typer.Typer(add_completion=False, pretty_exceptions_show_locals=False)
    app.command(
        context_settings={
            "auto_envvar_prefix": f"{ENVIRONMENT_PREFIX}_{command.__name__.upper()}",
            "help_option_names": HELP_OPTIONS,
        }
    )(command)
    return app
