"""A stream that changes workers equals the undisturbed one, wherever it is cut and whatever it asks
for. Real workers with both engines, behind a wire that is cut at a given event.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
from prometheus_client import CollectorRegistry

from services.cli.up.preflight import claim_port
from services.gateway.links.breaker import BreakerTuning
from services.mesh.status import from_rpc_error
from services.worker.engines import create
from services.worker.engines.base import Engine, ModelDescription
from services.worker.engines.scripted.settings import ScriptedSettings
from services.worker.engines.settings import EngineSettings
from services.worker.engines.transformers.engine import TransformersEngine
from services.worker.server import running as running_worker
from services.worker.settings import WorkerSettings
from tests.fakes.cutting_worker import CuttingWorker, Scissors
from tests.fakes.gateway_mesh import Client, chat_request, controller, gateway
from tests.fakes.tiny_format import TinyFormat
from tests.models import checkpoint
from tokenmesh.gateway.v1 import completion_pb2
from tokenmesh.mesh.v1 import chat_pb2 as mesh_chat_pb2
from tokenmesh.mesh.v1 import generation_pb2

MODEL = "resumed"
TOKENS = 24
TOOL_TEMPLATE = Path(__file__).parents[1] / "fakes" / "tool_template.jinja"


def _scripted() -> tuple[Engine, Any]:
    settings = ScriptedSettings(model_names=(MODEL,))
    return create("scripted", settings), settings


def _transformers() -> tuple[Engine, Any]:
    settings = EngineSettings(
        str(checkpoint()), model_names=(MODEL,), device="cpu", dtype="float32", threads=1
    )
    return create("transformers", settings), settings


def _writing() -> tuple[Engine, Any]:
    """An engine that writes what it is asked to, parsed."""
    settings = ScriptedSettings(model_names=(MODEL,), repeats=True, chat_format=TinyFormat())
    return create("scripted", settings), settings


class LettersEngine(TransformersEngine):
    """A model with random weights whose letters are parsed as markers."""

    @property
    def models(self) -> Sequence[ModelDescription]:
        (described,) = super().models
        letters = TinyFormat(think="e", thought="r", call="a", called="o")
        return (
            dataclasses.replace(
                described, chat_format=letters, capabilities=described.capabilities | {"TOOLS"}
            ),
        )


def _letters() -> tuple[Engine, Any]:
    _, settings = _transformers()
    settings = dataclasses.replace(settings, chat_template_path=TOOL_TEMPLATE)
    return LettersEngine(settings), settings


def _forced() -> tuple[Engine, Any]:
    _, settings = _transformers()
    settings = dataclasses.replace(settings, chat_format="hermes", chat_template_path=TOOL_TEMPLATE)
    return create("transformers", settings), settings


ENGINES = {
    "scripted": _scripted,
    "transformers": _transformers,
    "forced": _forced,
    "writing": _writing,
    "letters": _letters,
}
PLAIN = ("scripted", "transformers")


@dataclass
class Mesh:
    """A gateway before two workers whose streams can be cut."""

    client: Client
    scissors: Scissors


@asynccontextmanager
async def running_mesh(engine_name: str) -> AsyncIterator[Mesh]:
    scissors = Scissors()
    async with AsyncExitStack() as stack:
        address = await stack.enter_async_context(controller())
        for worker_id in ("a", "b"):
            engine, engine_settings = ENGINES[engine_name]()
            await engine.start()
            port = claim_port("127.0.0.1", 0)
            settings = WorkerSettings(
                engine=engine_settings,
                port=0,
                controllers=(address,),
                worker_id=worker_id,
                advertise_address=f"127.0.0.1:{port}",
                grace_period_s=0.0,
            )
            served = await stack.enter_async_context(
                running_worker(settings, engine, CollectorRegistry())
            )
            await stack.enter_async_context(CuttingWorker(port, served.address, scissors))
        # Workers whose streams are cut this often are trusted again at once.
        breaker = BreakerTuning(initial_backoff_s=0.01, max_backoff_s=0.01)
        client = await stack.enter_async_context(
            gateway(address, resume_wait_s=30.0, breaker=breaker)
        )
        await client.wait_served(2, MODEL)
        yield Mesh(client, scissors)


@pytest.fixture(scope="module", params=PLAIN)
def engine_name(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
async def mesh(engine_name: str) -> AsyncIterator[Mesh]:
    async with running_mesh(engine_name) as mesh:
        yield mesh


@dataclass
class Choice:
    """What a client got of one choice."""

    text: str = ""
    reasoning: str = ""
    calls: dict[int, list[str]] = field(default_factory=dict)
    """Id, name and arguments of each."""
    token_ids: list[int] = field(default_factory=list)
    likeliest: list[tuple[int, ...]] = field(default_factory=list)
    """Each token, and those that were likeliest in its place."""
    logprobs: list[float] = field(default_factory=list, compare=False)
    """Theirs. Equal but for rounding: a prefill adds in another order than a decode."""
    finish: bytes = b""


@dataclass
class Answer:
    """What a client got."""

    started: int = 0
    seed: int = 0
    usage: generation_pb2.Usage = field(default_factory=generation_pb2.Usage)
    choices: dict[int, Choice] = field(default_factory=dict)


async def answer_of(call: Any) -> Answer:
    answer = Answer()
    async for response in call:
        choice = answer.choices.setdefault(response.choice_index, Choice())
        match response.WhichOneof("event"):
            case "started":
                answer.started += 1
                answer.seed = response.started.seed
            case "chunk":
                assert not choice.finish
                choice.text += response.chunk.text
                choice.reasoning += response.chunk.reasoning
                for piece in response.chunk.tool_calls:
                    call = choice.calls.setdefault(piece.index, [])
                    if piece.HasField("id"):
                        assert not call
                        call += [piece.id, piece.name, ""]
                    call[2] += piece.arguments
                choice.token_ids.extend(response.chunk.token_ids)
                for each in response.chunk.logprobs:
                    shown = (each, *each.top)
                    choice.likeliest.append(tuple(token.token_id for token in shown))
                    choice.logprobs += [token.logprob for token in shown]
            case "finished":
                assert not choice.finish
                choice.finish = response.finished.SerializeToString() or b"-"
            case "completed":
                answer.usage.CopyFrom(response.completed.usage)
    # Whether an earlier request of the test has left its prompt in a cache is not the point.
    assert answer.usage.cached_tokens <= answer.usage.prompt_tokens
    answer.usage.cached_tokens = 0
    return answer


CASES: dict[str, dict[str, Any]] = {
    "greedy": {"temperature": 0.0, "seed": 1},
    "seeded": {"temperature": 1.3, "seed": 11},
    "penalties": {
        "seed": 3,
        "repetition_penalty": 1.3,
        "presence_penalty": 0.7,
        "frequency_penalty": 0.9,
    },
    "min_tokens": {"seed": 5, "min_tokens": 20, "ignore_eos": False},
    "logprobs": {"seed": 7, "top_logprobs": 3},
    "choices": {"seed": 9, "choices": 3, "temperature": 1.5},
    "logit_bias": {"seed": 13, "logit_bias": {65: 4.0, 70: -100.0}},
    "stream_interval": {"seed": 17, "stream_interval_tokens": 3},
    "top_k": {"seed": 19, "top_k": 40, "top_p": 0.9, "min_p": 0.01},
}
CUTS = ([1], [2], [3], [9], [17, 6], [25])
"""Events until each cut: after Started, inside and between characters, twice, and late."""


def asked(**sampling: Any) -> Any:
    given: dict[str, Any] = {"max_tokens": TOKENS, "ignore_eos": True} | sampling
    biases = given.pop("logit_bias", {})
    request = chat_request("Grüße 🙂", model=MODEL, **given)
    for token_id, bias in biases.items():
        request.sampling.logit_bias[token_id] = bias
    return request


@pytest.mark.parametrize("case", list(CASES))
async def test_a_cut_changes_nothing(mesh: Mesh, case: str) -> None:
    request = asked(**CASES[case])
    undisturbed = await answer_of(mesh.client.chat.Chat(request))
    assert sum(len(each.token_ids) for each in undisturbed.choices.values()) > 10
    for cuts in CUTS:
        mesh.scissors.events_until_cuts = list(cuts)
        disturbed = await answer_of(mesh.client.chat.Chat(request))
        assert disturbed == undisturbed
        for index, choice in undisturbed.choices.items():
            assert disturbed.choices[index].logprobs == pytest.approx(choice.logprobs, abs=1e-4)
        assert case == "stream_interval" or not mesh.scissors.events_until_cuts


async def test_a_stop_string_across_the_cut_is_found(mesh: Mesh) -> None:
    whole = await answer_of(mesh.client.chat.Chat(asked(seed=23, temperature=1.2)))
    text = whole.choices[0].text
    middle = len(text) // 2
    request = asked(seed=23, temperature=1.2)
    request.sampling.stop.append(text[middle - 2 : middle + 3])
    undisturbed = await answer_of(mesh.client.chat.Chat(request))
    tokens = len(undisturbed.choices[0].token_ids)
    assert 1 < tokens < TOKENS
    for cut in range(2, tokens + 2):
        mesh.scissors.events_until_cuts = [cut]
        assert await answer_of(mesh.client.chat.Chat(request)) == undisturbed


async def test_an_echoed_prompt_comes_once(mesh: Mesh) -> None:
    request = completion_pb2.CompleteRequest(model=MODEL, text="Grüße 🙂", echo=True)
    request.sampling.max_tokens = TOKENS
    request.sampling.ignore_eos = True
    request.sampling.seed = 29
    undisturbed = await answer_of(mesh.client.completion.Complete(request))
    assert undisturbed.choices[0].text.startswith("Grüße 🙂")
    for cut in (1, 2, 3, 12):
        mesh.scissors.events_until_cuts = [cut]
        assert await answer_of(mesh.client.completion.Complete(request)) == undisturbed


async def test_a_drawn_seed_holds_over_a_cut_and_is_told(mesh: Mesh) -> None:
    mesh.scissors.events_until_cuts = [9]
    disturbed = await answer_of(mesh.client.chat.Chat(asked(temperature=1.5)))
    again = await answer_of(mesh.client.chat.Chat(asked(temperature=1.5, seed=disturbed.seed)))
    assert disturbed == again


async def test_the_usage_counts_the_prompt_once_and_every_token(mesh: Mesh) -> None:
    mesh.scissors.events_until_cuts = [20, 8]
    answer = await answer_of(mesh.client.chat.Chat(asked(seed=1, choices=2)))
    assert answer.usage.completion_tokens == 2 * TOKENS
    assert answer.started == 1
    labels = {"model": MODEL, "cause": "UNAVAILABLE"}
    undisturbed = await answer_of(mesh.client.chat.Chat(asked(seed=1, choices=2)))
    assert dataclasses.replace(answer, usage=undisturbed.usage) == undisturbed
    assert answer.usage.prompt_tokens == undisturbed.usage.prompt_tokens
    assert mesh.client.metric("tokenmesh_gateway_resumes_total", **labels) == 0


WRITTEN = {
    "everything": '<think>hé\n</think>Ah <tool_call>f {"ü": 1}</tool_call>'
    "<tool_call>g {}</tool_call>",
    "held back at the end": "<think>hm</think>a <tool_ca",
    "a half call": '<tool_call>f {"a',
    "a call too many": "<tool_call>f {}</tool_call><tool_call>g {}</tool_call> and more",
}


@pytest.mark.parametrize("case", list(WRITTEN))
async def test_a_cut_changes_nothing_of_what_is_parsed(case: str) -> None:
    request = chat_request(WRITTEN[case], model=MODEL, seed=1)
    request.sampling.stream_interval_tokens = 2 if case == "everything" else 1
    request.prompt.tools.add(name="f")
    request.prompt.tools.add(name="g")
    if case == "a call too many":
        request.prompt.parallel_tool_calls = False
    async with running_mesh("writing") as mesh:
        await cut_everywhere(mesh, request)


async def test_a_cut_changes_nothing_that_a_model_says() -> None:
    request = chat_request("Grüße 🙂", model=MODEL, seed=33, max_tokens=TOKENS)
    request.sampling.temperature = 1.2
    request.prompt.tools.add(name="f")
    async with running_mesh("letters") as mesh:
        choice = await cut_everywhere(mesh, request)
        # What is held back to the end is parsed all the same.
        request.sampling.best_of = 4
        request.sampling.choices = 2
        best = await answer_of(mesh.client.chat.Chat(request))
    assert choice.text
    assert choice.reasoning
    assert choice.calls
    assert sorted(best.choices) == [0, 1]
    assert all(each.finish for each in best.choices.values())
    assert any(each.reasoning or each.calls for each in best.choices.values())
    assert best.usage.completion_tokens > TOKENS


async def test_a_cut_changes_nothing_of_a_call_that_is_forced() -> None:
    """The state of the grammar is rebuilt, too: the call fits its schema, and stays the same."""
    request = chat_request("Grüße 🙂", model=MODEL, seed=7, max_tokens=150)
    request.prompt.tools.add(
        name="f",
        parameters='{"type": "object", "properties": {"é": {"enum": ["🙂", "🌊"]}}, '
        '"required": ["é"], "additionalProperties": false}',
    )
    request.prompt.tool_choice.mode = mesh_chat_pb2.TOOL_CHOICE_MODE_REQUIRED
    request.prompt.parallel_tool_calls = False
    request.sampling.temperature = 1.5
    async with running_mesh("forced") as mesh:
        choice = await cut_everywhere(mesh, request, every=6)
    ((_, name, arguments),) = choice.calls.values()
    assert name == "f"
    assert json.loads(arguments)["é"] in {"🙂", "🌊"}


async def cut_everywhere(mesh: Mesh, request: Any, *, every: int = 1) -> Choice:
    """Cuts a stream at each event, or at some: inside names, arguments, markers, reasoning, and
    just before its end. Returns its choice.
    """

    async def ask() -> Answer:
        # The ids of calls are made of the request's.
        call = mesh.client.chat.Chat(request, metadata=(("x-request-id", "the-same"),))
        try:
            return await answer_of(call)
        except grpc.aio.AioRpcError as error:
            # The streams of both workers were cut just before.
            if from_rpc_error(error).reason != "NO_WORKER":
                raise
            await asyncio.sleep(0.005)
            return await ask()

    undisturbed = await ask()
    cut = 1 - every
    while not mesh.scissors.events_until_cuts:
        cut += every
        mesh.scissors.events_until_cuts = [cut]
        assert await ask() == undisturbed, f"cut after {cut} events"
    assert cut > len(undisturbed.choices[0].token_ids) // 2
    return undisturbed.choices[0]
