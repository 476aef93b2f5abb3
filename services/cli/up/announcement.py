"""What `tokenmesh up` tells people: that the mesh is ready and how to use it, or why it ended."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
from pathlib import Path

from rich.console import Console
from rich.text import Text

from services.cli.client_key import API_KEY_VARIABLE
from services.cli.up.notice import MeshNotice
from services.cli.up.supervisor import ChildError

QUESTION = "What is TokenMesh?"
DOCUMENTS = ["TokenMesh serves language models.", "Cats sleep all day."]


def curl_line(mesh: MeshNotice) -> str:
    """A command that asks the mesh something, for any POSIX shell."""
    path, body = _question(mesh)
    key = f'-H "authorization: Bearer ${API_KEY_VARIABLE}" ' if mesh.asks_for_keys else ""
    return (
        f"curl {mesh.base_url}{path} {key}-H 'content-type: application/json' "
        f"-d {shlex.quote(json.dumps(body))}"
    )


def _question(mesh: MeshNotice) -> tuple[str, dict[str, object]]:
    """Path and body of what the first model can do that chats, or else embeds, or else scores."""

    def first(capability: str) -> str | None:
        can = mesh.capabilities
        return next((each for each in mesh.models if capability in can.get(each, ())), None)

    if first("CHAT") is None and (model := first("EMBED")) is not None:
        return "/embeddings", {"model": model, "input": QUESTION}
    if first("CHAT") is None and (model := first("SCORE")) is not None:
        return "/rerank", {"model": model, "query": QUESTION, "documents": DOCUMENTS}
    message = {"role": "user", "content": QUESTION}
    return "/chat/completions", {"model": first("CHAT") or mesh.models[0], "messages": [message]}


def program() -> str:
    """How to call this program from the folder where it runs."""
    if shutil.which("tokenmesh") is not None:
        return "tokenmesh"
    return os.path.relpath(Path(sys.executable).parent / "tokenmesh")


def print_ready(console: Console, mesh: MeshNotice) -> None:
    """Prints the addresses of a mesh that is ready, and what to do next."""
    rows = [
        ("REST", mesh.base_url),
        ("gRPC", mesh.grpc_address),
        ("controller", ", ".join(mesh.addresses("controller"))),
        *(
            (
                f"metrics of {process.name}",
                f"http://{process.metrics_address}{process.metrics_path}",
            )
            for process in mesh.processes
        ),
        ("Envoy's admin", f"http://{mesh.envoy.metrics_address}"),
        ("logs", mesh.run_folder),
    ]
    width = max(len(label) for label, _ in rows)
    console.print(
        f"\nTokenMesh is ready: {', '.join(mesh.models)}\n", style="bold", highlight=False
    )
    for label, value in rows:
        console.print(Text.assemble((f"  {label:<{width}}  ", "dim"), value))
    key = f" with a key in {API_KEY_VARIABLE}" if mesh.asks_for_keys else ""
    console.print(Text(f"\nAsk it something{key}:\n\n{curl_line(mesh)}\n"))
    if any("CHAT" in mesh.capabilities.get(each, ()) for each in mesh.models):
        console.print(Text(f"Or talk to it: {program()} chat\n"))
    console.print(Text("Ctrl-C stops the mesh.\n"))


def print_failure(console: Console, failure: ChildError) -> None:
    """Prints which process ended a mesh, and the end of its log."""
    if failure.refusal is not None:
        console.print(Text(f"{failure.name} cannot start: {failure.refusal}"))
        return
    console.print(Text(f"\n{failure}.", style="bold red"))
    if failure.log_tail:
        console.print(Text(f"The end of its log, {failure.log_file}:", style="dim"))
        console.print(Text.from_ansi(failure.log_tail))
