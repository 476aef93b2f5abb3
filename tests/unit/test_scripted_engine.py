"""The scripted engine: its output, its ends, its limits."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.mesh.errors import (
    ContextLengthError,
    DeadlineError,
    InvalidRequestError,
    ModelNotFoundError,
    QueueFullError,
    UnavailableError,
)
from services.worker.engines.base import (
    Chunk,
    EngineRequest,
    Failed,
    Finished,
    FinishReason,
    OutputSoFar,
    Started,
    StepOutput,
)
from services.worker.engines.scripted import Pace, ScriptedEngine, ScriptedSettings, vocabulary

LIMIT_S = 30


def make_engine(
    *,
    pace: Pace | None = None,
    max_running: int = 8,
    max_waiting: int = 8,
    kv_total_tokens: int = 100_000,
    context_length_tokens: int = 4096,
) -> ScriptedEngine:
    return ScriptedEngine(
        ScriptedSettings(
            pace=pace or Pace(),
            max_running=max_running,
            max_waiting=max_waiting,
            kv_total_tokens=kv_total_tokens,
            context_length_tokens=context_length_tokens,
        )
    )


def request(key: object = "r", prompt: Any = "hello world", **fields: Any) -> EngineRequest:
    known = EngineRequest.__dataclass_fields__.keys()
    own = {name: fields.pop(name) for name in list(fields) if name in known}
    return EngineRequest(
        key=key, request_id="id", model="scripted", prompt=prompt, sampling_fields=fields, **own
    )


@dataclass
class Output:
    text: str = ""
    token_ids: list[int] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    events: list[Any] = field(default_factory=list)

    @property
    def finished(self) -> Finished:
        last = self.events[-1]
        assert isinstance(last, Finished), last
        return last


def is_terminal(event: object) -> bool:
    return isinstance(event, Finished | Failed)


async def collect(
    engine: ScriptedEngine, steps: AsyncIterator[StepOutput], ends: int
) -> Mapping[tuple[Any, int], Output]:
    """Reads steps until so many choices have ended."""
    outputs: dict[tuple[Any, int], Output] = {}
    async with asyncio.timeout(LIMIT_S):
        while ends:
            for each in (await anext(steps)).events:
                output = outputs.setdefault((each.key, each.choice_index), Output())
                output.events.append(each.event)
                output.numbers.append(each.number)
                if isinstance(each.event, Chunk):
                    output.text += each.event.text
                    output.texts.append(each.event.text)
                    output.token_ids.extend(each.event.token_ids)
                ends -= is_terminal(each.event)
    return outputs


async def run_one(engine: ScriptedEngine, wanted: EngineRequest) -> Output:
    await engine.submit(wanted)
    return (await collect(engine, engine.steps(), 1))[(wanted.key, 0)]


@given(st.text())
def test_tokenization_is_reversible(text: str) -> None:
    token_ids = vocabulary.encode(text)
    assert vocabulary.decode(token_ids, skip_special_tokens=True) == text
    assert all(0 <= each < vocabulary.VOCABULARY_SIZE for each in token_ids)


async def test_events_are_numbered_and_usage_adds_up() -> None:
    output = await run_one(make_engine(), request(max_tokens=40))
    assert output.numbers == list(range(42))
    assert isinstance(output.events[0], Started)
    assert output.finished.reason is FinishReason.LENGTH
    assert output.finished.completion_tokens == 40 == len(output.token_ids)
    assert output.text == vocabulary.decode(output.token_ids, skip_special_tokens=True)


async def test_output_depends_on_prompt_seed_and_choice_alone() -> None:
    async def text(**changes: Any) -> str:
        return (
            await run_one(make_engine(), request(**{"max_tokens": 32, "seed": 5} | changes))
        ).text

    same = await text()
    assert await text() == same
    assert await text(seed=6) != same
    assert await text(prompt="another prompt") != same
    assert await text(temperature=0.0) == await text(temperature=0.0, seed=6)
    engine = make_engine()
    await engine.submit(request(max_tokens=32, seed=5, choices=3))
    outputs = await collect(engine, engine.steps(), 3)
    assert outputs[("r", 0)].text == same
    assert len({each.text for each in outputs.values()}) == 3


async def test_answer_ends_by_itself() -> None:
    output = await run_one(make_engine(pace=Pace(answer_tokens=7)), request())
    assert output.finished.reason is FinishReason.STOP
    assert output.token_ids[-1] == vocabulary.END_TOKEN_ID
    assert output.finished.completion_tokens == 7
    assert vocabulary.END_TOKEN_TEXT not in output.text


@pytest.mark.parametrize(
    ("fields", "tokens", "reason"),
    [
        ({"min_tokens": 20}, 20, FinishReason.STOP),
        ({"ignore_eos": True, "max_tokens": 30}, 30, FinishReason.LENGTH),
        ({"max_tokens": 3}, 3, FinishReason.LENGTH),
    ],
)
async def test_fields_move_the_end(
    fields: dict[str, Any], tokens: int, reason: FinishReason
) -> None:
    output = await run_one(make_engine(pace=Pace(answer_tokens=7)), request(**fields))
    assert output.finished.completion_tokens == tokens
    assert output.finished.reason is reason


async def test_no_chunk_holds_half_a_character() -> None:
    output = await run_one(make_engine(), request(max_tokens=2000, ignore_eos=True))
    assert any(not each.isascii() for each in output.texts)
    assert "\ufffd" not in output.text


async def test_every_cut_matches_detokenize() -> None:
    """Also where max_tokens cuts a character in two."""
    engine = make_engine(max_running=64, max_waiting=64)
    for tokens in range(1, 60):
        await engine.submit(request(key=tokens, max_tokens=tokens, seed=11))
    outputs = await collect(engine, engine.steps(), 59)
    for output in outputs.values():
        assert output.text == vocabulary.decode(output.token_ids, skip_special_tokens=True)


async def test_stop_string_across_tokens_is_never_sent() -> None:
    whole = (await run_one(make_engine(), request(max_tokens=40))).text
    stop = whole[20:29]
    output = await run_one(make_engine(), request(max_tokens=40, stop=[stop]))
    assert output.text == whole[: whole.index(stop)]
    assert output.finished.stop_string == stop
    kept = await run_one(
        make_engine(), request(max_tokens=40, stop=[stop], include_stop_string=True)
    )
    assert kept.text == whole[: whole.index(stop) + len(stop)]


async def test_stop_token() -> None:
    whole = await run_one(make_engine(), request(max_tokens=40))
    stop = whole.token_ids[9]
    first = whole.token_ids.index(stop)
    output = await run_one(make_engine(), request(max_tokens=40, stop_token_ids=[stop]))
    assert output.token_ids == whole.token_ids[: first + 1]
    assert output.finished.stop_token_id == stop
    assert output.finished.reason is FinishReason.STOP


async def test_stream_interval_gathers_tokens() -> None:
    whole = await run_one(make_engine(), request(max_tokens=10))
    output = await run_one(make_engine(), request(max_tokens=10, stream_interval_tokens=4))
    assert output.text == whole.text
    assert [len(each.token_ids) for each in output.events if isinstance(each, Chunk)] == [4, 4, 2]


@pytest.mark.parametrize("cut", range(1, 40))
@pytest.mark.parametrize("stop", [[], ["no such stop"]])
async def test_resumes_from_any_token(cut: int, stop: list[str]) -> None:
    whole = await run_one(make_engine(), request(max_tokens=40, stop=stop))
    chunks = [each for each in whole.events if isinstance(each, Chunk)]
    delivered = "".join(each.text for each in chunks[:cut])
    so_far = OutputSoFar(tuple(whole.token_ids[:cut]), cut + 1, len(delivered.encode()))
    resumed = await run_one(
        make_engine(), request(max_tokens=40, stop=stop, output_so_far={0: so_far})
    )
    assert delivered + resumed.text == whole.text
    assert resumed.token_ids == whole.token_ids[cut:]
    assert resumed.numbers[0] == cut + 1
    assert resumed.finished.completion_tokens == 40


async def test_resume_sends_text_that_the_client_missed() -> None:
    whole = await run_one(make_engine(), request(max_tokens=10))
    so_far = OutputSoFar(tuple(whole.token_ids[:5]), 3, 4)
    resumed = await run_one(make_engine(), request(max_tokens=10, output_so_far={0: so_far}))
    assert whole.text.encode()[4:].decode() == resumed.text


async def test_resume_behind_the_end_finishes_at_once() -> None:
    whole = await run_one(make_engine(), request(max_tokens=10))
    so_far = OutputSoFar(tuple(whole.token_ids), 11, len(whole.text.encode()))
    resumed = await run_one(make_engine(), request(max_tokens=10, output_so_far={0: so_far}))
    assert resumed.text == ""
    assert resumed.finished.completion_tokens == 10


async def test_resume_from_nonsense_is_refused() -> None:
    for so_far in (OutputSoFar((1, 2), 3, 99), OutputSoFar((10**6,), 1, 0)):
        with pytest.raises(InvalidRequestError) as caught:
            await make_engine().submit(request(output_so_far={0: so_far}))
        assert (caught.value.field or "").startswith("output_so_far.")


async def test_echo_repeats_the_prompt() -> None:
    plain = await run_one(make_engine(), request(max_tokens=5))
    echoed = await run_one(make_engine(), request(max_tokens=5, echo=True))
    assert echoed.text == "hello world" + plain.text
    assert echoed.finished.completion_tokens == 5


async def test_logprobs_come_with_each_token() -> None:
    output = await run_one(make_engine(), request(max_tokens=4, top_logprobs=3))
    for chunk in output.events[1:-1]:
        (logprob,) = chunk.logprobs
        assert logprob.token_id == chunk.token_ids[0]
        assert logprob.top[0].token_id == logprob.token_id
        assert len(logprob.top) == 3


async def test_credit_holds_a_sequence_back() -> None:
    engine = make_engine()
    await engine.submit(request(key="held", max_tokens=10, credit_tokens=4))
    await engine.submit(request(key="free", max_tokens=10))
    steps = engine.steps()
    first = await collect(engine, steps, 1)
    assert first[("free", 0)].finished.completion_tokens == 10
    assert len(first[("held", 0)].token_ids) == 4
    engine.grant_credit("held", 6)
    rest = await collect(engine, steps, 1)
    assert len(rest[("held", 0)].token_ids) == 6
    engine.grant_credit("held", 6)


async def test_abort_frees_the_place() -> None:
    engine = make_engine(max_running=1)
    await engine.submit(request(key="long", max_tokens=4000, ignore_eos=True))
    await engine.submit(request(key="next", max_tokens=2))
    steps = engine.steps()
    await anext(steps)
    assert (engine.load().running, engine.load().waiting) == (1, 1)
    engine.abort("long")
    engine.abort("long")
    outputs = await collect(engine, steps, 1)
    assert list(outputs) == [("next", 0)]
    assert engine.load().running == 0
    assert engine.load().kv_used_tokens == 0


async def test_waiting_is_bounded_and_ordered_by_priority() -> None:
    engine = make_engine(max_running=1, max_waiting=2)
    await engine.submit(request(key="running", max_tokens=3))
    await engine.submit(request(key="low", max_tokens=3))
    await engine.submit(request(key="high", max_tokens=3, priority=1))
    with pytest.raises(QueueFullError):
        await engine.submit(request(key="refused", max_tokens=3))
    outputs = await collect(engine, engine.steps(), 3)
    assert [key for key, _ in outputs] == ["running", "high", "low"]


async def test_more_choices_than_places() -> None:
    engine = make_engine(max_running=2)
    await engine.submit(request(max_tokens=5, choices=5))
    outputs = await collect(engine, engine.steps(), 5)
    assert sorted(choice for _, choice in outputs) == [0, 1, 2, 3, 4]
    assert engine.load().running == engine.load().waiting == engine.load().kv_used_tokens == 0


async def test_full_kv_makes_requests_wait() -> None:
    engine = make_engine(kv_total_tokens=100, max_running=8)
    for key in range(3):
        await engine.submit(request(key=key, max_tokens=60))
    steps = engine.steps()
    await anext(steps)
    assert (engine.load().running, engine.load().waiting) == (1, 2)
    await collect(engine, steps, 3)


@pytest.mark.parametrize(
    ("prompt", "fields", "field_name"),
    [
        ((1,) * 100, {}, "prompt"),
        ((1,) * 90, {"max_tokens": 11}, "sampling.max_tokens"),
    ],
)
async def test_what_never_fits_is_refused(
    prompt: tuple[int, ...], fields: dict[str, Any], field_name: str
) -> None:
    for engine in (make_engine(kv_total_tokens=100), make_engine(context_length_tokens=100)):
        with pytest.raises(ContextLengthError) as caught:
            await engine.submit(request(prompt=prompt, **fields))
        assert caught.value.field == field_name


async def test_bad_requests_are_refused() -> None:
    engine = make_engine()
    for prompt in ("", (), (-1,), (10**6,)):
        with pytest.raises(InvalidRequestError):
            await engine.submit(request(prompt=prompt))
    with pytest.raises(DeadlineError):
        await engine.submit(request(deadline_s=0.0))
    with pytest.raises(ModelNotFoundError):
        await engine.tokenize("other", "text", add_special_tokens=True)
    with pytest.raises(InvalidRequestError):
        await engine.detokenize("scripted", [10**6], skip_special_tokens=True)


async def test_deadline_fails_what_waits_and_what_runs() -> None:
    engine = make_engine(max_running=1, pace=Pace(token_interval_s=0.005, answer_tokens=0))
    soon = time.monotonic() + 0.05
    await engine.submit(request(key="runs", deadline_s=soon))
    await engine.submit(request(key="waits", deadline_s=soon, choices=2))
    outputs = await collect(engine, engine.steps(), 3)
    for output in outputs.values():
        assert isinstance(output.events[-1], Failed)
        assert isinstance(output.events[-1].error, DeadlineError)
    assert outputs[("waits", 1)].numbers == [0]
    assert engine.load().running == engine.load().waiting == 0


async def test_a_request_that_comes_while_a_failure_is_read_is_not_forgotten() -> None:
    engine = make_engine(pace=Pace(prefill_s=3600))
    steps = engine.steps()
    await engine.submit(request(key="late", deadline_s=time.monotonic() + 0.02))
    await collect(engine, steps, 1)
    await engine.submit(request(key="next", deadline_s=time.monotonic() + 0.02))
    assert list(await collect(engine, steps, 1)) == [("next", 0)]


async def test_prefill_and_interval_are_simulated() -> None:
    pace = Pace(prefill_s=0.02, prefill_token_s=0.01, token_interval_s=0.01)
    output = await run_one(make_engine(pace=pace), request(prompt=(1,) * 4, max_tokens=6))
    assert output.finished.timing.prefill_s >= pace.prefill_time_s(4)
    assert output.finished.timing.decode_s >= 4 * pace.token_interval_s


async def test_stop_fails_what_runs_and_ends_steps() -> None:
    engine = make_engine(pace=Pace(answer_tokens=0, prefill_s=3600))
    await engine.submit(request())
    steps = engine.steps()
    reading = asyncio.create_task(collect(engine, steps, 1))
    await asyncio.sleep(0)
    await engine.stop()
    output = (await reading)[("r", 0)]
    assert isinstance(output.events[-1], Failed)
    assert isinstance(output.events[-1].error, UnavailableError)
    async with asyncio.timeout(LIMIT_S):
        assert [each async for each in steps] == []
    with pytest.raises(UnavailableError):
        await engine.submit(request())
