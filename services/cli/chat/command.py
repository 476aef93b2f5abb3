"""`tokenmesh chat`: a conversation in the terminal, or one question from a pipe."""

from __future__ import annotations

import sys
from typing import Annotated

import grpc
import typer

from services.cli import mesh_access
from services.cli.chat import answering
from services.cli.chat.conversation import Conversation
from services.cli.chat.talk import Talk
from services.cli.options import Option, Url
from tokenmesh.mesh.v1 import generation_pb2


def chat(
    question: Annotated[
        str | None,
        typer.Argument(
            help="Asked at once; the command ends after the answer. Without it, and with a pipe as "
            "standard input, all that comes through the pipe is the question.",
            show_default=False,
        ),
    ] = None,
    *,
    url: Url = None,
    model: Annotated[
        str | None,
        Option(metavar="MODEL", help="Default: the only model that is served.", show_default=False),
    ] = None,
    system: Annotated[str, Option(metavar="TEXT", help="What the model is told beforehand.")] = "",
    temperature: Annotated[
        float | None,
        Option(
            min=0,
            max=2,
            metavar="0…2",
            help="0 is always the likeliest token. Default: the model's own.",
        ),
    ] = None,
    max_tokens: Annotated[
        int | None,
        Option(min=1, metavar="N", help="Ends an answer. Default: what the context leaves."),
    ] = None,
    seed: Annotated[
        int | None,
        Option(min=0, metavar="N", help="Equal seeds give equal answers. Default: random."),
    ] = None,
    quiet: Annotated[bool, Option("--quiet", "-q", help="Show nothing but answers.")] = False,
) -> None:
    """Talks to a model.

    In a terminal: type, read, type on. /help tells the rest.

    [bold]Examples[/]
    tokenmesh chat
    tokenmesh chat "What is the capital of France?"
    echo "Say hello" | tokenmesh chat --quiet
    tokenmesh chat --model Qwen/Qwen3-0.6B --temperature 0 --seed 7
    tokenmesh chat --url http://mesh.example:8000
    """
    sampling = generation_pb2.SamplingParameters(
        temperature=temperature, max_tokens=max_tokens, seed=seed
    )
    with mesh_access.open_mesh(url) as channel:
        talk = Talk(
            channel, model or only_model(channel), Conversation(system), sampling, quiet=quiet
        )
        if question is None and sys.stdin.isatty():
            talk.interactively()
        else:
            talk.once(sys.stdin.read() if question is None else question)


def only_model(channel: grpc.Channel) -> str:
    """The model that is served; ends the command if there are several, or none."""
    names = answering.model_names(channel)
    if not names:
        mesh_access.fail("no model is served just now")
    if len(names) > 1:
        mesh_access.fail(f"choose a model with --model: {', '.join(names)}", exit_code=2)
    return names[0]
