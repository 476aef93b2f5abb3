"""A few clients in each turn of the event loop."""

from __future__ import annotations

import asyncio
import itertools

from services.gateway.relay.turns import Turns


async def serve(turns: Turns, name: str, served: list[str]) -> None:
    turn = turns.take()
    if turn is not None:
        await turn
    served.append(name)


async def test_those_who_come_first_go_on_at_once() -> None:
    turns = Turns(2)
    assert [turns.take() is None for _ in range(4)] == [True, True, False, False]


async def test_the_others_go_on_in_their_order_a_few_in_each_turn() -> None:
    turns, served = Turns(2), list[str]()
    clients = [asyncio.create_task(serve(turns, name, served)) for name in "abcdefg"]
    seen = [0]
    while not all(client.done() for client in clients):
        await asyncio.sleep(0)
        seen.append(len(served))
    assert "".join(served) == "abcdefg"
    assert max(later - earlier for earlier, later in itertools.pairwise(seen)) <= 2


async def test_who_comes_later_does_not_overtake() -> None:
    turns, served = Turns(1), list[str]()
    early = [asyncio.create_task(serve(turns, name, served)) for name in "ab"]
    await asyncio.sleep(0)
    late = asyncio.create_task(serve(turns, "c", served))
    await asyncio.gather(*early, late)
    assert "".join(served) == "abc"


async def test_who_leaves_gives_the_place_up() -> None:
    turns, served = Turns(1), list[str]()
    clients = [asyncio.create_task(serve(turns, name, served)) for name in "abcd"]
    await asyncio.sleep(0)
    clients[1].cancel()
    await asyncio.gather(*clients, return_exceptions=True)
    assert "".join(served) == "acd"


async def test_a_pause_forgets_the_past() -> None:
    turns = Turns(1)
    assert turns.take() is None
    await asyncio.sleep(0)
    assert turns.take() is None
