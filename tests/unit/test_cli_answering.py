from __future__ import annotations

from collections.abc import Iterator

from services.cli.chat.answering import Answer
from tokenmesh.gateway.v1 import chat_pb2
from tokenmesh.mesh.v1 import generation_pb2


class Call:
    """A call that gives what it was made with."""

    def __init__(self, *responses: chat_pb2.ChatResponse) -> None:
        self._responses = responses
        self.cancelled = False

    def __iter__(self) -> Iterator[chat_pb2.ChatResponse]:
        return iter(self._responses)

    def cancel(self) -> bool:
        self.cancelled = True
        return True


def chunk(text: str) -> chat_pb2.ChatResponse:
    return chat_pb2.ChatResponse(chunk=chat_pb2.GenerationChunk(text=text))


def finished(reason: generation_pb2.FinishReason.ValueType) -> chat_pb2.ChatResponse:
    return chat_pb2.ChatResponse(finished=chat_pb2.ChoiceFinished(reason=reason))


def completed(tokens: int, decode_ms: int = 0) -> chat_pb2.ChatResponse:
    timing = generation_pb2.Timing()
    timing.decode.FromMilliseconds(decode_ms)
    usage = generation_pb2.Usage(completion_tokens=tokens)
    return chat_pb2.ChatResponse(completed=chat_pb2.GenerationCompleted(usage=usage, timing=timing))


STARTED = chat_pb2.ChatResponse(started=chat_pb2.GenerationStarted(prompt_tokens=3))


def test_an_answer_is_its_chunks() -> None:
    answer = Answer(
        Call(
            STARTED,
            chunk("Hel"),
            chunk("lo"),
            finished(generation_pb2.FINISH_REASON_STOP),
            completed(2, decode_ms=10),
        )
    )
    assert list(answer) == ["Hel", "lo"]
    assert answer.text == "Hello"
    assert answer.completion_tokens == 2
    assert answer.first_token_s is not None
    assert answer.tokens_per_s == 100
    assert not answer.cut_short


def test_an_answer_at_its_token_limit_is_cut_short() -> None:
    answer = Answer(Call(chunk("Hel"), finished(generation_pb2.FINISH_REASON_LENGTH), completed(1)))
    assert list(answer) == ["Hel"]
    assert answer.cut_short


def test_one_token_has_no_rate() -> None:
    answer = Answer(Call(STARTED, chunk("Yes"), completed(1, decode_ms=5)))
    assert list(answer) == ["Yes"]
    assert answer.tokens_per_s is None


def test_an_empty_answer_has_no_times() -> None:
    answer = Answer(Call(STARTED, finished(generation_pb2.FINISH_REASON_STOP), completed(0)))
    assert list(answer) == []
    assert (answer.text, answer.first_token_s, answer.tokens_per_s) == ("", None, None)


def test_an_interrupted_answer_keeps_what_came_and_cancels_the_call() -> None:
    call = Call(STARTED, chunk("Hel"), chunk("lo"))
    answer = Answer(call)
    assert next(iter(answer)) == "Hel"
    answer.interrupt()
    assert answer.text == "Hel"
    assert call.cancelled
