"""The verdict sees what must not happen: it is what makes a run a test."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.chaos.faults import Fault, FaultKind, Service, Suffered
from tests.chaos.questions import CHAT, Question
from tests.chaos.resumes import quantile_of
from tests.chaos.streams import Exchange, _read_response
from tests.chaos.transcript import BrokenAnswerError, ErrorAnswerError, Transcript, read_stream
from tests.chaos.verdict import Outcome, Verdict, judge, upstream_hosts

QUESTION = Question("q", CHAT, {})
HOST = "198.18.0.2:21000"


def chunk(content: str = "", *, finish: str | None = None, **fields: Any) -> dict[str, Any]:
    return {
        "id": "chatcmpl-1",
        "created": 1,
        "object": "chat.completion.chunk",
        "model": "m",
        "choices": [{"index": 0, "delta": {"content": content}, "finish_reason": finish}],
        **fields,
    }


def body(*chunks: dict[str, Any], done: bool = True) -> bytes:
    lines = [*(json.dumps(each) for each in chunks), *(["[DONE]"] if done else [])]
    return "".join(f"data: {line}\n\n" for line in lines).encode()


def exchange(content: bytes, *, is_whole: bool = True, status: int = 200) -> Exchange:
    return Exchange(
        QUESTION, "r", 10.0, 20.0, status, content, is_whole, "" if is_whole else "broke off"
    )


WHOLE = body(chunk("Hel"), chunk("lo"), chunk(finish="stop"))
RIGHT = {"q": read_stream(WHOLE)}


def outcome(content: bytes, **fields: Any) -> Outcome:
    return judge(exchange(content, **fields), RIGHT, [], {}).outcome


def test_where_events_end_does_not_matter() -> None:
    assert outcome(WHOLE) is Outcome.EQUAL
    assert outcome(body(chunk("H"), chunk("ello", finish="stop"))) is Outcome.EQUAL


@pytest.mark.parametrize(
    "content",
    [
        body(chunk("Hel"), chunk("o"), chunk(finish="stop")),
        body(chunk("Hel"), chunk("lolo"), chunk(finish="stop")),
        body(chunk("Hello"), chunk(finish="length")),
        body(chunk("Hello")),
        body(chunk("Hello"), chunk(finish="stop", usage={"completion_tokens": 3})),
    ],
    ids=["lost", "repeated", "other finish", "no finish", "other usage"],
)
def test_another_answer_differs(content: bytes) -> None:
    assert outcome(content) is Outcome.DIFFERING


def test_what_is_not_whole_has_failed() -> None:
    error = b'data: {"error": {"message": "lost", "type": "server_error", "code": null}}\n\n'
    assert outcome(body(chunk("Hel"), done=False) + error) is Outcome.FAILED
    assert outcome(body(chunk("Hel"), done=False)) is Outcome.FAILED
    assert outcome(b"", is_whole=False) is Outcome.FAILED
    refused = b'{"error": {"message": "no worker", "type": "server_error", "code": "no_worker"}}'
    assert outcome(refused, status=503) is Outcome.FAILED
    assert outcome(refused, status=429) is Outcome.REJECTED


def test_two_ids_are_no_one_answer() -> None:
    with pytest.raises(BrokenAnswerError):
        read_stream(body(chunk("a"), {**chunk("b"), "id": "chatcmpl-2"}))
    with pytest.raises(BrokenAnswerError):
        read_stream(body(chunk(finish="stop"), chunk(finish="stop")))
    with pytest.raises(ErrorAnswerError):
        read_stream(b'data: {"error": {"message": "m"}}\n\n')


def test_only_who_was_with_a_killed_gateway_is_lost_with_it() -> None:
    killed = Suffered(Fault(1, FaultKind.KILL, "gateway-1", 1), Service.GATEWAY, HOST, 15.0)
    cut_off = exchange(b"", is_whole=False)
    lost = judge(cut_off, RIGHT, [killed], {"r": HOST})
    assert lost.outcome is Outcome.LOST_WITH_GATEWAY
    assert judge(cut_off, RIGHT, [killed], {"r": "other:1"}).outcome is Outcome.FAILED
    assert judge(cut_off, RIGHT, [killed], {}).outcome is Outcome.FAILED
    later = Suffered(killed.fault, Service.GATEWAY, HOST, 25.0)
    assert judge(cut_off, RIGHT, [later], {"r": HOST}).outcome is Outcome.FAILED


def test_a_run_is_clean_only_where_nothing_failed_or_differs() -> None:
    right = judge(exchange(WHOLE), RIGHT, [], {})
    failed = judge(exchange(b"", is_whole=False), RIGHT, [], {})
    differing = judge(exchange(body(chunk("x"))), RIGHT, [], {})
    assert Verdict([right]).is_clean
    assert not Verdict([right, failed]).is_clean
    assert not Verdict([right, differing]).is_clean
    assert not Verdict([right], ["worker-1 ended by itself"]).is_clean


def test_the_access_log_tells_the_gateway() -> None:
    line = json.dumps({"request_id": "r", "upstream_host": HOST})
    assert upstream_hosts(f'{line}\n{{"request_id": "cut') == {"r": HOST}


@pytest.mark.parametrize(
    ("received", "content", "is_whole"),
    [
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nab", b"ab", True),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nab", b"ab", False),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n", b"ab", True),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n", b"ab", False),
        (b"", b"", False),
    ],
)
def test_a_response_is_whole_only_with_its_end(
    received: bytes, content: bytes, is_whole: bool
) -> None:
    read = Exchange(QUESTION, "r", 0.0)
    _read_response(read, received)
    assert (read.body, read.is_whole) == (content, is_whole)
    assert bool(read.failure) is not is_whole


def test_choices_are_told_apart() -> None:
    def of(index: int, text: str) -> dict[str, Any]:
        choices = [{"index": index, "delta": {"content": text}, "finish_reason": None}]
        return {**chunk(), "choices": choices}

    one = read_stream(body(of(0, "a"), of(1, "b"), of(0, "c")))
    other = read_stream(body(of(1, "b"), of(0, "ac")))
    swapped: Transcript = read_stream(body(of(0, "b"), of(1, "ac")))
    assert not one.differences(other)
    assert one.differences(swapped)


def test_a_quantile_lies_between_the_bounds() -> None:
    buckets = {0.1: 50.0, 0.5: 100.0, float("inf"): 100.0}
    assert quantile_of(buckets, 0.5, scale=1000) == pytest.approx(100)
    assert quantile_of(buckets, 0.75, scale=1000) == pytest.approx(300)
    assert quantile_of({0.1: 0.0, float("inf"): 0.0}, 0.5, scale=1) is None
