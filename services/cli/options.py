"""Options that several commands have, and how all options show in a command's help."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import typer

from services.mesh.options import DEFAULT_CONTROLLER

DEFAULT_URL = "http://127.0.0.1:8000"

# The help of the program tells how environment variables are called: a column of them would leave
# no room for what the options mean.
Option = partial(typer.Option, show_envvar=False)

Url = Annotated[
    str | None,
    Option(
        envvar="TOKENMESH_URL",
        metavar="URL",
        help="Where the mesh is. Default: TOKENMESH_URL, else the mesh that was started last below "
        f"this folder, else {DEFAULT_URL}.",
        show_default=False,
    ),
]
Controller = Annotated[
    str | None,
    Option(
        envvar="TOKENMESH_CONTROLLER",
        metavar="HOST:PORT",
        help="A controller, or several with commas between them: the first that answers is asked. "
        "Default: TOKENMESH_CONTROLLER, else those of the mesh that was started last below this "
        f"folder, else {DEFAULT_CONTROLLER}.",
        show_default=False,
    ),
]
AsJson = Annotated[bool, Option("--json", help="Print JSON, for programs.")]
