"""Reads what peers send, refuses what is malformed, and bounds what is kept.

A malformed frame has a reason of its own: HELLO_MALFORMED, HEARTBEAT_MALFORMED and so on.

Everything a worker names is kept for as long as its lease lives and goes to every gateway. So each
part has a limit, generous for what is meant and small against a controller's memory.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence

from services.controller.registry import Capacity, Load, Model, Worker, WorkerState
from services.mesh.errors import InvalidRequestError, ProtocolError
from services.mesh.release import PROTOCOL_VERSION
from tokenmesh.controller.v1 import registry_pb2
from tokenmesh.mesh.v1 import model_pb2

MAX_ID_CHARACTERS = 128
MAX_ADDRESS_CHARACTERS = 261
MAX_RELEASE_CHARACTERS = 64
MAX_MODELS = 256
MAX_MODEL_NAME_CHARACTERS = 256
MAX_MODEL_BYTES = 32 * 1024
MAX_LABELS = 32
MAX_LABEL_KEY_CHARACTERS = 64
MAX_LABEL_VALUE_CHARACTERS = 256
# Prefixes come most recent first; those beyond this one are the least worth knowing, and dropped.
MAX_CACHED_PREFIXES = 1024

_ADDRESS = re.compile(r"(?P<host>[A-Za-z0-9_.-]+|\[[0-9A-Fa-f:.%]+\]):(?P<port>[0-9]{1,5})")
_HOSTS_TO_LISTEN_ON = ("0.0.0.0", "[::]")

_STATES = {
    registry_pb2.WORKER_STATE_SERVING: WorkerState.SERVING,
    registry_pb2.WORKER_STATE_DRAINING: WorkerState.DRAINING,
}


def _malformed(field: str, wrong: str) -> InvalidRequestError:
    frame = field.partition(".")[0]
    return InvalidRequestError(f"{field} {wrong}", reason=f"{frame.upper()}_MALFORMED", field=field)


def check_protocol_version(version: int) -> None:
    """Refuses a peer of another protocol.

    Raises:
        ProtocolError: the version is not ours (PROTOCOL_VERSION_UNSUPPORTED).
    """
    if version != PROTOCOL_VERSION:
        raise ProtocolError(
            f"protocol version {version} is not spoken here; this controller speaks "
            f"{PROTOCOL_VERSION}",
            reason="PROTOCOL_VERSION_UNSUPPORTED",
        )


def check_id(field: str, given: str) -> str:
    """An id as it was given.

    Raises:
        InvalidRequestError: it is empty, too long, or holds spaces or control characters.
    """
    if not given:
        raise _malformed(field, "is empty; it is required")
    _check_length(field, given, MAX_ID_CHARACTERS)
    if not given.isprintable() or " " in given:
        raise _malformed(field, f"is {given!r}; spaces and control characters are not allowed")
    return given


def read_hello(hello: registry_pb2.Hello, *, wall_clock_s: float) -> Worker:
    """The worker that a Hello introduces.

    Raises:
        ProtocolError: it speaks another protocol (PROTOCOL_VERSION_UNSUPPORTED).
        InvalidRequestError: a field is missing or wrong (HELLO_MALFORMED).
    """
    check_protocol_version(hello.protocol_version)
    _check_length("hello.release", hello.release, MAX_RELEASE_CHARACTERS)
    return Worker(
        worker_id=check_id("hello.worker_id", hello.worker_id),
        incarnation=check_id("hello.incarnation", hello.incarnation),
        address=_read_address("hello.address", hello.address),
        models=read_models("hello.models", hello.models),
        capacity=_read_capacity(hello),
        state=read_state("hello.state", hello.state),
        labels=_read_labels("hello.labels", hello.labels),
        release=hello.release,
        attached_at_s=wall_clock_s,
        renewed_at_s=wall_clock_s,
    )


def read_state(field: str, given: registry_pb2.WorkerState.ValueType) -> WorkerState:
    """A worker's state.

    Raises:
        InvalidRequestError: it is unspecified or not known here.
    """
    state = _STATES.get(given)
    if state is None:
        allowed = ", ".join(registry_pb2.WorkerState.Name(each) for each in _STATES)
        raise _malformed(field, f"is {given}; it must be one of {allowed}")
    return state


def read_load(load: registry_pb2.Load) -> Load:
    """A worker's load.

    Raises:
        InvalidRequestError: the speed is not a number that can be.
    """
    if not (math.isfinite(load.tokens_per_second) and load.tokens_per_second >= 0):
        wrong = f"is {load.tokens_per_second}; it must be a finite number, 0 or more"
        raise _malformed("heartbeat.load.tokens_per_second", wrong)
    return Load(
        running=load.running,
        waiting=load.waiting,
        kv_used_tokens=load.kv_used_tokens,
        kv_total_tokens=load.kv_total_tokens,
        tokens_per_second=load.tokens_per_second,
    )


def read_cached_prefixes(prefixes: Sequence[int]) -> tuple[int, ...]:
    """The most recent of the prefixes that a worker has cached."""
    return tuple(prefixes[:MAX_CACHED_PREFIXES])


def read_models(field: str, models: Sequence[model_pb2.Model]) -> tuple[Model, ...]:
    """What a worker serves.

    Raises:
        InvalidRequestError: there is no model, there are too many, a name is missing or too long,
            a description is too big, or two models answer to one name.
    """
    if not models:
        raise _malformed(field, "is empty; a worker serves at least one model")
    if len(models) > MAX_MODELS:
        raise _malformed(field, f"has {len(models)} entries; at most {MAX_MODELS} are allowed")
    read = tuple(_read_model(f"{field}[{index}]", model) for index, model in enumerate(models))
    owners: dict[str, int] = {}
    for index, model in enumerate(read):
        for name in model.names:
            owner = owners.setdefault(name, index)
            if owner != index:
                wrong = f"answers to {name!r}, and so does {field}[{owner}]; names must differ"
                raise _malformed(f"{field}[{index}]", wrong)
    return read


def _read_model(field: str, model: model_pb2.Model) -> Model:
    if model.ByteSize() > MAX_MODEL_BYTES:
        wrong = f"takes {model.ByteSize()} bytes; at most {MAX_MODEL_BYTES} are allowed"
        raise _malformed(field, wrong)
    adapters = [adapter.name for adapter in model.adapters]
    _check_names(f"{field}.name", [model.name])
    _check_names(f"{field}.aliases", model.aliases)
    _check_names(f"{field}.adapters", adapters)
    return Model(
        model.name,
        tuple(model.aliases),
        tuple(adapters),
        model.SerializeToString(deterministic=True),
    )


def _check_names(field: str, names: Iterable[str]) -> None:
    for name in names:
        if not name:
            raise _malformed(field, "is or holds an empty name; a name is required")
        _check_length(field, name, MAX_MODEL_NAME_CHARACTERS)


def _read_address(field: str, address: str) -> str:
    if not address:
        raise _malformed(field, 'is empty; it must be "host:port"')
    _check_length(field, address, MAX_ADDRESS_CHARACTERS)
    match = _ADDRESS.fullmatch(address)
    if match is None or not 1 <= int(match["port"]) <= 65535:
        raise _malformed(field, f'is {address!r}; it must be "host:port", port 1 to 65535')
    if match["host"] in _HOSTS_TO_LISTEN_ON:
        wrong = f"is {address!r}, which can be listened on but not reached; name the machine"
        raise _malformed(field, wrong)
    return address


def _read_capacity(hello: registry_pb2.Hello) -> Capacity:
    capacity = hello.capacity
    if capacity.max_running < 1:
        raise _malformed("hello.capacity.max_running", "is 0 or absent; it must be 1 or more")
    if not (math.isfinite(capacity.speed) and capacity.speed > 0):
        wrong = f"is {capacity.speed:g} or absent; it must be a finite number over 0, such as 1"
        raise _malformed("hello.capacity.speed", wrong)
    return Capacity(
        max_running=capacity.max_running,
        max_waiting=capacity.max_waiting,
        kv_total_tokens=capacity.kv_total_tokens,
        speed=capacity.speed,
    )


def _read_labels(field: str, labels: Mapping[str, str]) -> dict[str, str]:
    if len(labels) > MAX_LABELS:
        raise _malformed(field, f"has {len(labels)} entries; at most {MAX_LABELS} are allowed")
    for key, label in labels.items():
        if not key:
            raise _malformed(field, "has an empty key")
        _check_length(f"{field} key", key, MAX_LABEL_KEY_CHARACTERS)
        _check_length(f"{field}[{key!r}]", label, MAX_LABEL_VALUE_CHARACTERS)
    return dict(labels)


def _check_length(field: str, given: str, limit: int) -> None:
    if len(given) > limit:
        raise _malformed(field, f"has {len(given)} characters; at most {limit} are allowed")
