"""What clients see when workers and controllers fail: as little as can be."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import grpc
import pytest

from services.mesh import status
from services.mesh.errors import (
    InternalError,
    MeshError,
    NoWorkerError,
    QueueFullError,
    UnavailableError,
)
from tests.fakes.fake_worker import (
    MODEL,
    FakeRequest,
    FakeWorker,
    Script,
    failing,
    fake_model,
    hang,
    say_hello,
    start_and_hang,
)
from tests.fakes.gateway_mesh import (
    Client,
    chat_request,
    controller,
    error_of,
    eventually,
    gateway,
)
from tokenmesh.worker.v1 import worker_pb2

LOADS = 20
DEATHS = 5


@pytest.fixture
async def address() -> AsyncIterator[str]:
    async with controller() as address:
        yield address


async def one_of(workers: list[FakeWorker]) -> tuple[FakeWorker, FakeWorker]:
    """The worker that runs a request, and the other one."""
    await eventually(lambda: any(worker.running for worker in workers))
    first, second = workers
    return (first, second) if first.running else (second, first)


async def test_a_worker_that_dies_before_the_first_token_goes_unnoticed(address: str) -> None:
    workers = [FakeWorker([address], hang, worker_id=name) for name in ("a", "b")]
    async with workers[0], workers[1], gateway(address) as client:
        await client.wait_served(2)
        answer = asyncio.create_task(client.answer())
        dying, other = await one_of(workers)
        other.script = say_hello
        await dying.break_streams()
        assert await answer == "Hello"
        assert other.starts[0].sampling.seed == dying.starts[0].sampling.seed
        assert client.metric("tokenmesh_gateway_retries_total", model=MODEL, cause="WORKER_LOST")


async def test_started_is_given_once_though_two_workers_start(address: str) -> None:
    async def start_only(request: FakeRequest) -> None:
        await request.started()
        await asyncio.Event().wait()

    workers = [FakeWorker([address], start_only, worker_id=name) for name in ("a", "b")]
    async with workers[0], workers[1], gateway(address) as client:
        await client.wait_served(2)
        responses = aiter(client.chat.Chat(chat_request()))
        kinds = [(await anext(responses)).WhichOneof("event")]
        dying, other = await one_of(workers)
        other.script = say_hello
        await dying.break_streams()
        kinds += [response.WhichOneof("event") async for response in responses]
    assert kinds.count("started") == 1
    assert kinds[-2:] == ["finished", "completed"]


async def go_on(request: FakeRequest) -> None:
    """Goes on with what `start_and_hang` has begun."""
    await request.started()
    await request.chunk("lo", [2])
    await request.finish(completion_tokens=2)


async def test_another_worker_goes_on_with_a_stream_that_has_begun(address: str) -> None:
    workers = [FakeWorker([address], start_and_hang, worker_id=name) for name in ("a", "b")]
    async with workers[0], workers[1], gateway(address) as client:
        await client.wait_served(2)
        responses = aiter(client.chat.Chat(chat_request()))
        text = (await anext(responses)).chunk.text + (await anext(responses)).chunk.text
        dying, other = await one_of(workers)
        other.script = go_on
        await dying.break_streams()
        rest = [response async for response in responses]
        labels = {"model": MODEL, "cause": "WORKER_LOST"}
        assert client.metric("tokenmesh_gateway_resumes_total", **labels) == 1
        assert client.metric("tokenmesh_gateway_resume_gap_seconds_count", **labels) == 1
    assert text + "".join(response.chunk.text for response in rest) == "Hello"
    assert [response.WhichOneof("event") for response in rest] == ["chunk", "finished", "completed"]
    (so_far,) = other.starts[0].output_so_far
    assert (list(so_far.token_ids), so_far.next_number, so_far.delivered_bytes) == ([1], 2, 3)


async def test_without_another_worker_a_stream_ends_with_the_reason(address: str) -> None:
    async with (
        FakeWorker([address], start_and_hang) as worker,
        gateway(address, resume_wait_s=0.0) as client,
    ):
        await client.wait_served(1)
        responses = aiter(client.chat.Chat(chat_request()))
        await anext(responses)
        await worker.break_streams()
        error = await error_of(responses)
    assert (error.code, error.reason) == ("UNAVAILABLE", "WORKER_LOST")
    assert error.retry_after_s is not None


async def test_a_stream_waits_for_a_worker_to_come(address: str) -> None:
    async with (
        FakeWorker([address], start_and_hang, worker_id="a") as worker,
        gateway(address, resume_wait_s=60.0) as client,
    ):
        await client.wait_served(1)
        responses = aiter(client.chat.Chat(chat_request()))
        await anext(responses)
        await worker.die()
        async with FakeWorker([address], say_hello, worker_id="b"):
            rest = [response async for response in responses]
    assert "".join(response.chunk.text for response in rest) == "Hello"


async def test_a_worker_with_other_weights_does_not_go_on(address: str) -> None:
    workers = [
        FakeWorker([address], start_and_hang, worker_id=name, models=[fake_model(revision=name)])
        for name in ("a", "b")
    ]
    async with workers[0], workers[1], gateway(address, resume_wait_s=0.5) as client:
        await client.wait_served(2)
        responses = aiter(client.chat.Chat(chat_request()))
        await anext(responses)
        dying, other = await one_of(workers)
        await dying.break_streams()
        assert (await error_of(responses)).reason == "WORKER_LOST"
        assert not other.starts


@pytest.mark.parametrize(
    "error",
    [
        NoWorkerError("this worker drains", retry_after_s=1),
        QueueFullError("as many wait as may", retry_after_s=1),
        UnavailableError("the engine stopped"),
    ],
    ids=lambda error: error.reason,
)
async def test_what_a_worker_cannot_take_goes_to_another(address: str, error: MeshError) -> None:
    refusing = FakeWorker([address], failing(error), worker_id="a")
    async with refusing, FakeWorker([address], worker_id="b"), gateway(address) as client:
        await client.wait_served(2)
        assert [await client.answer() for _ in range(12)] == ["Hello"] * 12
        assert refusing.starts


async def test_when_every_queue_is_full_the_client_is_told_when_to_come_back(address: str) -> None:
    full = failing(QueueFullError("as many wait as may", retry_after_s=3))
    workers = [FakeWorker([address], full, worker_id=name) for name in ("a", "b")]
    async with workers[0], workers[1], gateway(address) as client:
        await client.wait_served(2)
        error = await error_of(client.chat.Chat(chat_request()))
        assert (error.reason, error.retry_after_s) == ("QUEUE_FULL", 3)
        assert [len(worker.starts) for worker in workers] == [1, 1]


async def test_attempts_are_bounded_and_each_goes_elsewhere(address: str) -> None:
    failed = failing(UnavailableError("no"))
    workers = [FakeWorker([address], failed, worker_id=name) for name in "abcd"]
    async with AsyncExitStack() as stack:
        for worker in workers:
            await stack.enter_async_context(worker)
        client = await stack.enter_async_context(gateway(address, max_attempts=3))
        await client.wait_served(4)
        assert (await error_of(client.chat.Chat(chat_request()))).code == "UNAVAILABLE"
        assert sorted(len(worker.starts) for worker in workers) == [0, 1, 1, 1]


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        ([worker_pb2.SequenceEvent(number=1, started=worker_pb2.Started())], "gap"),
        ([worker_pb2.SequenceEvent(started=worker_pb2.Started())] * 2, "duplicate"),
        ([worker_pb2.SequenceEvent(choice_index=7, started=worker_pb2.Started())], "choice"),
        ([worker_pb2.SequenceEvent()], "empty"),
    ],
    ids=["gap", "duplicate", "choice", "empty"],
)
async def test_a_broken_sequence_is_the_workers_fault(
    address: str, raw: list[worker_pb2.SequenceEvent], code: str
) -> None:
    async def break_the_rules(request: FakeRequest) -> None:
        for event in raw:
            await request.send_raw(worker_pb2.SequenceEvent.FromString(event.SerializeToString()))
        await asyncio.Event().wait()

    async with (
        FakeWorker([address], break_the_rules) as worker,
        gateway(address, resume_wait_s=0.0) as client,
    ):
        await client.wait_served(1)
        error = await error_of(client.chat.Chat(chat_request()))
        assert (error.code, error.reason) == ("UNAVAILABLE", "SEQUENCE_BROKEN")
        await eventually(lambda: not worker.running)


async def test_faults_trip_the_breaker_and_a_trial_lets_the_worker_back(address: str) -> None:
    failing_worker = FakeWorker([address], failing(InternalError("a bug")), worker_id="a")
    async with failing_worker as bad, gateway(address) as client:
        await client.wait_served(1)
        for _ in range(5):
            assert (await error_of(client.chat.Chat(chat_request()))).code == "INTERNAL"
        error = await error_of(client.chat.Chat(chat_request()))
        assert (error.code, error.reason) == ("UNAVAILABLE", "NO_WORKER")
        assert len(bad.starts) == 5
        assert client.metric("tokenmesh_gateway_workers", state="broken") == 1
        bad.script = say_hello
        await eventually(lambda: client.metric("tokenmesh_gateway_workers", state="serving") == 1)
        assert await client.answer() == "Hello"


async def test_a_restarted_worker_is_used_again(address: str) -> None:
    async with gateway(address) as client:
        async with FakeWorker([address]) as first:
            await client.wait_served(1)
            port = first.port
            await first.die()
        async with FakeWorker([address], port=port) as second:
            await served_again(client)
            assert second.starts


async def served_again(client: Client) -> None:
    """Waits until a request is answered."""
    async with asyncio.timeout(20):
        while (await _outcome(client)) != "Hello":
            await asyncio.sleep(0.02)


async def _outcome(client: Client) -> str:
    call = client.chat.Chat(chat_request())
    text = ""
    try:
        async for response in call:
            text += response.chunk.text
    except grpc.aio.AioRpcError as error:
        failure = status.from_rpc_error(error)
        return f"{failure.code} {failure.reason}"
    return text


async def test_a_stream_that_broke_is_opened_again(address: str) -> None:
    """The worker process lives and keeps its lease; only its server was away."""
    async with FakeWorker([address], worker_id="a") as worker, gateway(address) as client:
        await client.wait_served(1)
        assert await client.answer() == "Hello"
        replacement = FakeWorker([], worker_id="a", port=worker.port)
        await worker.break_streams()
        async with replacement:
            await served_again(client)
            assert replacement.starts


async def test_what_was_only_refused_may_begin_on_other_weights(address: str) -> None:
    full = failing(QueueFullError("as many wait as may", retry_after_s=1))
    old, new = fake_model(revision="1"), fake_model(revision="2")
    async with (
        FakeWorker([address], full, worker_id="a", models=[old]) as refusing,
        FakeWorker([address], worker_id="b", models=[new]),
        gateway(address) as client,
    ):
        await client.wait_served(2)
        assert [await client.answer() for _ in range(8)] == ["Hello"] * 8
        assert refusing.starts


async def test_a_draining_worker_gives_its_streams_to_another(address: str) -> None:
    workers = [FakeWorker([address], start_and_hang, worker_id=name) for name in ("a", "b")]
    async with workers[0], workers[1], gateway(address) as client:
        await client.wait_served(2)
        responses = aiter(client.chat.Chat(chat_request()))
        await anext(responses)
        await anext(responses)
        draining, other = await one_of(workers)
        other.script = say_hello
        draining.drain()
        rest = [response async for response in responses]
        assert not draining.running
        labels = {"model": MODEL, "cause": "WORKER_DRAINING"}
        assert client.metric("tokenmesh_gateway_resumes_total", **labels) == 1
    assert [response.chunk.text for response in rest] == ["lo", "", ""]
    assert len(other.starts) == 1


async def test_a_draining_worker_keeps_its_streams_until_another_comes(address: str) -> None:
    async with (
        FakeWorker([address], start_and_hang, worker_id="a") as draining,
        gateway(address, resume_wait_s=0.0) as client,
    ):
        await client.wait_served(1)
        responses = aiter(client.chat.Chat(chat_request()))
        await anext(responses)
        draining.drain()
        await client.wait_served(0)
        assert draining.running
        async with FakeWorker([address], say_hello, worker_id="b"):
            rest = [response async for response in responses]
    assert "".join(response.chunk.text for response in rest) == "Hello"


async def test_two_deaths_convict_only_what_caused_them(address: str) -> None:
    """The poison is in company, and other streams go on."""

    async def die_of_poison(request: FakeRequest) -> None:
        if request.start.chat.messages[0].content[0].text == "poison":
            (mine,) = (worker for worker in workers if worker.worker_id == request.worker_id)
            deaths.append(asyncio.create_task(mine.die()))
            await hang(request)
        said = [each.delivered_bytes for each in request.start.output_so_far]
        await request.started()
        if not said:
            await request.chunk("Hel", [1])
        await go_on_talking.wait()
        await request.chunk("lo", [2])
        await request.finish(completion_tokens=2)

    deaths: list[asyncio.Task[None]] = []
    go_on_talking = asyncio.Event()
    workers = [FakeWorker([address], die_of_poison, worker_id=name) for name in "abcd"]
    async with AsyncExitStack() as stack:
        for worker in workers:
            await stack.enter_async_context(worker)
        client = await stack.enter_async_context(gateway(address, routing_policy="round_robin"))
        await client.wait_served(4)
        innocents = [asyncio.create_task(client.answer()) for _ in range(12)]
        await eventually(lambda: sum(len(worker.running) for worker in workers) == 12)
        error = await error_of(client.chat.Chat(chat_request("poison")))
        assert (error.code, error.reason) == ("INVALID_ARGUMENT", "POISON_REQUEST")
        assert len(deaths) == 2
        error = await error_of(client.chat.Chat(chat_request("poison")))
        assert error.reason == "POISON_REQUEST"
        assert len(deaths) == 2
        go_on_talking.set()
        assert await asyncio.gather(*innocents) == ["Hello"] * 12
        assert await client.answer() == "Hello"
        assert client.metric("tokenmesh_gateway_poison_requests_total", model=MODEL) == 1
        assert client.metric("tokenmesh_gateway_quarantine_refusals_total") == 1


async def test_draining_keeps_requests_away_and_lets_running_ones_end(address: str) -> None:
    go_on = asyncio.Event()

    async def slow(request: FakeRequest) -> None:
        await request.started()
        await request.chunk("Hel")
        await go_on.wait()
        await request.chunk("lo")
        await request.finish()

    async with FakeWorker([address], slow) as worker, gateway(address) as client:
        await client.wait_served(1)
        answer = asyncio.create_task(client.answer())
        await eventually(lambda: bool(worker.running))
        worker.drain()
        await client.wait_served(0)
        error = await error_of(client.chat.Chat(chat_request()))
        assert (error.code, error.reason) == ("UNAVAILABLE", "NO_WORKER")
        assert error.retry_after_s is not None
        assert client.metric("tokenmesh_gateway_workers", state="draining") == 1
        go_on.set()
        assert await answer == "Hello"


async def test_a_model_whose_workers_are_gone_is_unavailable_then_unknown(address: str) -> None:
    async with gateway(address, forget_after_s=1.0) as client:
        async with FakeWorker([address]):
            await client.wait_served(1)
            await client.wait_complete()
        async with asyncio.timeout(20):
            while (await client.served()) != {}:
                await asyncio.sleep(0.02)
        error = await error_of(client.chat.Chat(chat_request()))
        assert (error.code, error.reason) == ("UNAVAILABLE", "NO_WORKER")
        async with asyncio.timeout(20):
            while error.code != "NOT_FOUND":
                error = await error_of(client.chat.Chat(chat_request()))
                await asyncio.sleep(0.05)


async def test_requests_go_on_while_the_controller_restarts() -> None:
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(AsyncExitStack())
        address = await first.enter_async_context(controller())
        port = int(address.rpartition(":")[2])
        for name in ("a", "b"):
            await stack.enter_async_context(FakeWorker([address], worker_id=name))
        client = await stack.enter_async_context(gateway(address))
        await client.wait_served(2)
        answers: list[str] = []
        stop = asyncio.Event()

        async def load() -> None:
            while not stop.is_set():
                answers.append(await client.answer())

        loads = [asyncio.create_task(load()) for _ in range(8)]
        await eventually(lambda: len(answers) > 50)
        await first.aclose()
        gone_at = len(answers)
        await eventually(lambda: len(answers) > gone_at + 50)
        assert client.metric("tokenmesh_gateway_controller_connected", controller=address) == 0
        await stack.enter_async_context(controller(port))
        await eventually(
            lambda: client.metric("tokenmesh_gateway_controller_connected", controller=address) == 1
        )
        back_at = len(answers)
        await eventually(lambda: len(answers) > back_at + 50)
        await client.wait_served(2)
        stop.set()
        await asyncio.gather(*loads)
    assert set(answers) == {"Hello"}


async def test_workers_of_two_controllers_are_merged() -> None:
    async with (
        controller() as first,
        controller() as second,
        FakeWorker([first], worker_id="a") as a,
        FakeWorker([second], worker_id="b") as b,
        FakeWorker([first, second], worker_id="c") as c,
        gateway(first, second, routing_policy="round_robin") as client,
    ):
        await client.wait_served(3)
        for _ in range(6):
            assert await client.answer() == "Hello"
        assert [len(worker.starts) for worker in (a, b, c)] == [2, 2, 2]


async def test_before_any_controller_has_answered_nothing_is_unknown() -> None:
    async with gateway("127.0.0.1:1") as client:
        error = await error_of(client.chat.Chat(chat_request()))
        assert (error.code, error.reason) == ("UNAVAILABLE", "NO_WORKER")


async def test_shortest_queue_spreads_what_hangs(address: str) -> None:
    scripts: dict[str, Script] = {"a": hang, "b": hang}
    workers = [FakeWorker([address], scripts[name], worker_id=name) for name in ("a", "b")]
    async with workers[0], workers[1], gateway(address, routing_policy="shortest_queue") as client:
        await client.wait_served(2)
        calls = [client.chat.Chat(chat_request()) for _ in range(10)]
        await eventually(lambda: sum(len(worker.running) for worker in workers) == 10)
        assert [len(worker.running) for worker in workers] == [5, 5]
        for call in calls:
            call.cancel()
        await eventually(lambda: not any(worker.running for worker in workers))


async def test_nothing_is_left_behind_when_workers_die_under_load(address: str) -> None:
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(FakeWorker([address], worker_id="survivor"))
        client = await stack.enter_async_context(gateway(address))
        await client.wait_served(1)
        stop = asyncio.Event()
        outcomes: list[str] = []

        async def load() -> None:
            while not stop.is_set():
                outcomes.append(await _outcome(client))

        loads = [asyncio.create_task(load()) for _ in range(LOADS)]
        for number in range(DEATHS):
            async with FakeWorker([address], worker_id=f"mortal-{number}") as mortal:
                await eventually(lambda mortal=mortal: len(mortal.starts) > 20)  # type: ignore[misc]
        stop.set()
        await asyncio.gather(*loads)
        await eventually(
            lambda: client.metric("tokenmesh_gateway_requests_running", model=MODEL) == 0
        )
        assert await client.answer() == "Hello"
    assert set(outcomes) == {"Hello"}
