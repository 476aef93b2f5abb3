"""What would keep a mesh from starting and can be seen at once, before anything is started."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import re
import socket
from collections.abc import Sequence
from pathlib import Path
from random import sample
from typing import IO

from services.cli.up.plan import ServedModel
from services.mesh.errors import StartError
from services.worker.engines import ENGINES
from services.worker.engines.settings import DEVICES, DTYPES

AUTO_ENGINE, SCRIPTED_ENGINE = "auto", "scripted"
DEMO_MODEL_NAME = "tokenmesh-demo"
DEMO_MODEL = Path(__file__).resolve().parents[3] / "examples" / "demo_model" / "model"

# Linux hands out ports from 32768 on, other systems from 49152 on.
DRAWN_PORTS = range(20_000, 32_768)
DRAWS = 64

_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
_DEVICE = re.compile(r"(?P<kind>[a-z]+)(:\d+)?")


class PortTakenError(StartError):
    """Somebody listens on the port."""


def resolve_host(host: str) -> str:
    """The IP address of a host, since Envoy listens on nothing else; IPv4 where there are both.

    Raises:
        StartError: the name has none.
    """
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError as error:
        raise StartError(f"--host is {host!r}, which has no address: {error.strerror}") from error
    _, _, _, _, address = min(found, key=lambda each: each[0] != socket.AF_INET)
    return str(address[0])


def resolve_keys(api_keys: str | None, file: Path | None) -> str:
    """The keys that the gateway gets plainly, split by commas; empty where none are asked for.

    Where there is a file alone, nobody here knows a key: one is drawn, which nobody else learns,
    so that the mesh can be asked whether it is ready.

    Raises:
        StartError: a key or the file cannot be.
    """
    if not api_keys and file is None:
        return ""
    # Takes a tenth of a second to load.
    from services.gateway.keys.hashing import new_key
    from services.gateway.keys.sources import first_keys_of_file, keys_of_option

    plain = keys_of_option(api_keys)
    if file is not None:
        first_keys_of_file(file)
    return api_keys if plain and api_keys else new_key()


def claim_port(host: str, port: int) -> int:
    """The port, if nobody listens on it; for port 0 one that is free just now.

    A free one is drawn from below those that systems hand out by themselves: nobody else who asks
    for any port can get it before it is listened on.

    `host` is an IP address.

    Raises:
        StartError: the port is taken, or the address is not this machine's.
    """
    if port:
        return _check_port(host, port)
    for drawn in sample(DRAWN_PORTS, DRAWS):
        with contextlib.suppress(PortTakenError):
            return _check_port(host, drawn)
    raise StartError(f"of {DRAWS} ports that were tried, none is free: name one with --port")


def _check_port(host: str, port: int) -> int:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((host, port))
            return int(listener.getsockname()[1])
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise PortTakenError(f"port {port} is taken: choose another with --port") from error
        if error.errno == errno.EACCES:
            raise StartError(
                f"port {port} needs more rights: choose one over 1023 with --port"
            ) from error
        raise StartError(f"cannot listen on {host}:{port}: {error.strerror}") from error


def claim_run_folder(folder: Path) -> IO[bytes]:
    """Makes the folder and locks it for as long as the returned file stays open.

    Raises:
        StartError: it cannot be made, or another mesh uses it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / "lock").open("wb")
    except OSError as error:
        raise StartError(f"run folder {folder}: {error.strerror}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        raise StartError(f"another mesh runs in {folder}: choose another --run-dir") from None
    return lock


def check_engine(engine: str) -> None:
    """Raises StartError for an engine that does not exist."""
    known = (AUTO_ENGINE, *ENGINES)
    if engine not in known:
        raise StartError(f"unknown engine {engine!r}: choose from {', '.join(known)}")


def check_device(device: str) -> None:
    """Raises StartError for a device of a kind that no engine knows.

    Whether this machine has the device, the worker finds out.
    """
    match = _DEVICE.fullmatch(device)
    if match is None or match["kind"] not in DEVICES:
        raise StartError(
            f"unknown device {device!r}: choose from {', '.join(DEVICES)}, "
            "with an index where there are several, such as cuda:1"
        )


def check_weights(dtype: str | None, *, load_8bit: bool, load_4bit: bool) -> None:
    """Raises StartError for a type that does not exist, and for two ways to shrink weights."""
    if dtype is not None and dtype not in DTYPES:
        raise StartError(f"unknown dtype {dtype!r}: choose from {', '.join(DTYPES)}")
    if load_8bit and load_4bit:
        raise StartError("weights can be shrunk in one way: leave out --load-8bit or --load-4bit")


def resolve_models(
    models: Sequence[str], names: Sequence[str], engine: str
) -> tuple[ServedModel, ...]:
    """The models to serve, each with the names given for it; the demo model where there are none.

    Raises:
        StartError: a model is not there, or there are more names than models.
    """
    if len(names) > max(1, len(models)):
        raise StartError(
            f"--model-names is given {len(names)} times, and --model {len(models)} times: give it "
            "once for each model"
        )
    given: list[str | None] = list(names)
    given += [None] * (max(1, len(models)) - len(names))
    if engine == SCRIPTED_ENGINE:
        paths: Sequence[str | None] = models or [None]
    elif models:
        paths = [resolve_model(each) for each in models]
    else:
        paths, given = [resolve_model(None)], [given[0] or DEMO_MODEL_NAME]
    return tuple(map(ServedModel, paths, given))


def resolve_model(model: str | None) -> str:
    """A folder as an absolute path, a hub id as it is, the demo model for None.

    Raises:
        StartError: there is no such folder, or it holds no checkpoint.
    """
    if model is None:
        if not DEMO_MODEL.is_dir():
            raise StartError(f"the demo model is not at {DEMO_MODEL}: choose one with --model")
        return str(DEMO_MODEL)
    folder = Path(model).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise StartError(f"model folder {model} holds no checkpoint: it has no config.json")
        return str(folder.resolve())
    if folder.exists():
        raise StartError(f"model {model} is a file: give the folder of the checkpoint")
    if _HUB_ID.fullmatch(model) is None or model.startswith("."):
        raise StartError(f"model folder {model} does not exist")
    return model
