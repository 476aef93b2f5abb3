"""`tokenmesh keys create | list | hash | revoke`."""

from __future__ import annotations

import getpass
import json
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from services.cli.keys.file_change import change_file
from services.cli.keys.lifetimes import expiry_of
from services.cli.mesh_access import fail
from services.cli.options import AsJson, Option
from services.gateway.keys.hashing import (
    MIN_SAFE_CHARACTERS,
    digest_of,
    hash_text,
    is_sendable,
    new_key,
)
from services.gateway.keys.key import Key, KeyLimits
from services.gateway.keys.key_file import KeyFileError
from services.gateway.keys.key_file_edit import with_key, with_revoked
from services.gateway.keys.sources import read_key_file
from services.mesh.options import API_KEYS_FILE_VARIABLE

PIPE_WIDTH = 1000

keys = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="Makes and revokes API keys, in a file that holds their hashes alone.\n\n"
    "Gateways read it with --api-keys-file, and again whenever it changes.",
)

KeysFile = Annotated[
    Path,
    Option(
        "--file",
        envvar=API_KEYS_FILE_VARIABLE,
        metavar="FILE",
        help=f"The file of keys. Default: {API_KEYS_FILE_VARIABLE}, else keys.yaml here.",
        show_default=False,
    ),
]
DEFAULT_FILE = Path("keys.yaml")


@keys.command()
def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Whom the key is for.")],
    *,
    file: KeysFile = DEFAULT_FILE,
    models: Annotated[
        str,
        Option(
            metavar="PATTERNS",
            help="Models that it may use, split by commas; * and ? stand for any characters.",
        ),
    ] = "*",
    requests_per_minute: Annotated[
        int | None, Option("--requests-per-minute", "--rpm", min=1, metavar="N")
    ] = None,
    tokens_per_minute: Annotated[
        int | None,
        Option(
            "--tokens-per-minute",
            "--tpm",
            min=1,
            metavar="N",
            help="Of prompts and completions together.",
        ),
    ] = None,
    max_concurrent: Annotated[
        int | None, Option(min=1, metavar="N", help="Requests that may run at once.")
    ] = None,
    weight: Annotated[
        float, Option(metavar="W", help="Its part of a full mesh, relative to other keys.")
    ] = 1.0,
    expires: Annotated[
        str | None,
        Option(metavar="WHEN", help="A span such as 30d, a day such as 2027-01-31, or a time."),
    ] = None,
    note: Annotated[str, Option(metavar="TEXT", help="For people.")] = "",
) -> None:
    """Makes a key, prints it, and adds its hash to the file.

    It is shown this once: the file cannot tell it again. The key alone goes
    to standard output, so that a script can keep it.

    [bold]Examples[/]
    tokenmesh keys create alice
    tokenmesh keys create ci --models 'llama-*' --rpm 60 --tpm 20000 --expires 90d
    """
    try:
        expires_at_s = None if expires is None else expiry_of(expires, time.time())
    except ValueError as error:
        fail(f"--expires {expires}: {error}", exit_code=2)
    text = new_key()
    key = Key(
        name,
        digest_of(text),
        models=tuple(pattern.strip() for pattern in models.split(",")),
        limits=KeyLimits(requests_per_minute, tokens_per_minute, max_concurrent),
        weight=weight,
        expires_at_s=expires_at_s,
        note=note,
    )
    _change(file, lambda content: with_key(content, key))
    print(text)
    print(f"{file} lets {name} in with this key. It is not shown again.", file=sys.stderr)


@keys.command("list")
def list_keys(file: KeysFile = DEFAULT_FILE, as_json: AsJson = False) -> None:
    """Lists the keys of the file, and what they may do."""
    try:
        known = read_key_file(file)
    except KeyFileError as error:
        fail(f"{file}: {error}", exit_code=2)
    now_s = time.time()
    if as_json:
        print(json.dumps({"keys": [_described(key, now_s) for key in known]}, indent=2))
        return
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in ("KEY", "STATE", "MODELS", "EXPIRES", "NOTE"):
        table.add_column(column, overflow="fold")
    for column in ("REQ/MIN", "TOK/MIN", "AT ONCE", "WEIGHT"):
        table.add_column(column, justify="right")
    for key in known:
        limits = key.limits
        table.add_row(
            key.name,
            key.why_refused(now_s) or "[green]counts[/]",
            ", ".join(key.models),
            _day(key.expires_at_s) or "–",
            key.note,
            *(
                "–" if limit is None else str(limit)
                for limit in (
                    limits.requests_per_minute,
                    limits.tokens_per_minute,
                    limits.max_concurrent,
                )
            ),
            f"{key.weight:g}",
        )
    Console(width=None if sys.stdout.isatty() else PIPE_WIDTH).print(table)


@keys.command("hash")
def hash_key(
    allow_short: Annotated[
        bool, Option("--allow-short", help="Also a key that can be guessed from its hash.")
    ] = False,
) -> None:
    """Prints the hash of a key that you have, for the file.

    It is read from standard input, never from the command line, which
    everybody on the machine can see.

    [bold]Example[/]
    tokenmesh keys hash < old-key
    """
    asked = getpass.getpass("Key: ") if sys.stdin.isatty() else sys.stdin.readline()
    text = asked.strip()
    if not text:
        fail("no key came from standard input", exit_code=2)
    if not is_sendable(text):
        fail("a key may hold printable ASCII only, and no blanks: headers carry nothing else", 2)
    if len(text) < MIN_SAFE_CHARACTERS and not allow_short:
        fail(
            f"a key of under {MIN_SAFE_CHARACTERS} characters can be guessed from its hash: let "
            "'tokenmesh keys create' draw one, or say --allow-short",
            exit_code=2,
        )
    print(hash_text(digest_of(text)))


@keys.command()
def revoke(
    name: Annotated[str, typer.Argument(metavar="NAME", help="As tokenmesh keys list has it.")],
    file: KeysFile = DEFAULT_FILE,
) -> None:
    """Disables a key: within a second it begins nothing more. What it runs may end."""
    if not file.exists():
        fail(f"{file}: there is no such file", exit_code=2)
    _change(file, lambda content: with_revoked(content, name))
    print(f"{name} is revoked in {file}.", file=sys.stderr)


def _change(file: Path, change: Callable[[str], str]) -> None:
    try:
        change_file(file, change)
    except KeyFileError as error:
        fail(f"{file}: {error}", exit_code=2)
    except UnicodeDecodeError:
        fail(f"{file}: is not UTF-8 text", exit_code=2)
    except OSError as error:
        fail(f"{file}: cannot be written: {error.strerror}")


def _described(key: Key, now_s: float) -> dict[str, object]:
    return {
        "name": key.name,
        "state": key.why_refused(now_s) or "counts",
        "models": list(key.models),
        "requests_per_minute": key.limits.requests_per_minute,
        "tokens_per_minute": key.limits.tokens_per_minute,
        "max_concurrent": key.limits.max_concurrent,
        "weight": key.weight,
        "expires": _day(key.expires_at_s),
        "note": key.note,
        "metadata": dict(key.metadata),
    }


def _day(expires_at_s: float | None) -> str | None:
    if expires_at_s is None:
        return None
    return datetime.fromtimestamp(expires_at_s, UTC).isoformat(timespec="seconds")
