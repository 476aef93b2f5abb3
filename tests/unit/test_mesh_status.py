"""Errors keep their meaning on the way through google.rpc.Status."""

from __future__ import annotations

import grpc
import pytest
from google.rpc import code_pb2, error_details_pb2, status_pb2

from services.mesh import errors, status


def all_kinds(root: type[errors.MeshError]) -> list[type[errors.MeshError]]:
    children = root.__subclasses__()
    return [*children, *(kind for child in children for kind in all_kinds(child))]


KINDS = all_kinds(errors.MeshError)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_error_comes_back_as_itself(kind: type[errors.MeshError]) -> None:
    sent = kind("what happened", field="sampling.top_p", retry_after_s=1.5)
    received = status.from_status(status.to_status(sent))
    assert type(received) is kind
    assert received.code == sent.code
    assert received.reason == sent.reason
    assert (received.message, received.field, received.retry_after_s) == (
        "what happened",
        "sampling.top_p",
        1.5,
    )


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_code_is_one_of_grpc(kind: type[errors.MeshError]) -> None:
    assert status.grpc_code(kind("")) is grpc.StatusCode[kind.code]


def test_reasons_are_unique() -> None:
    reasons = [kind.default_reason for kind in KINDS]
    assert sorted(reasons) == sorted(set(reasons))


def test_details_are_the_standard_ones() -> None:
    made = status.to_status(errors.InvalidRequestError("must be 0 to 2", field="temperature"))
    info, bad_request = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    assert made.details[0].Unpack(info)
    assert (info.reason, info.domain) == ("INVALID_REQUEST", "tokenmesh")
    assert made.details[1].Unpack(bad_request)
    assert bad_request.field_violations[0].field == "temperature"


def test_a_status_without_details_is_told_by_its_code() -> None:
    bare = status_pb2.Status(code=code_pb2.UNAVAILABLE, message="gone")
    error = status.from_status(bare)
    assert type(error) is errors.UnavailableError
    assert error.message == "gone"


def test_a_custom_reason_survives() -> None:
    sent = errors.ProtocolError("a second Hello", reason="HELLO_REPEATED")
    received = status.from_status(status.to_status(sent))
    assert type(received) is errors.ProtocolError
    assert received.reason == "HELLO_REPEATED"


def test_an_unknown_code_is_internal() -> None:
    assert type(status.from_status(status_pb2.Status(code=99))) is errors.InternalError


def test_retry_after_is_whole_seconds_and_at_least_one() -> None:
    error = errors.QueueFullError("full", retry_after_s=0.2)
    metadata = dict(status.trailing_metadata(error, status.to_status(error), "req-1"))
    assert metadata["retry-after"] == "1"
    assert metadata["x-request-id"] == "req-1"
