"""What a conversation leaves out to fit: whole turns, the oldest first."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from services.gateway.openai.responses.conversation import Conversation
from services.gateway.openai.responses.items import PlacedItem, read_input
from services.gateway.openai.responses.truncation import drop_oldest

CALL = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}
OUTPUT = {"type": "function_call_output", "call_id": "c", "output": "1"}
ITEMS = read_input(
    [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": "a"},
        CALL,
        OUTPUT,
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": "c"},
        {"role": "assistant", "content": "d"},
        {"role": "user", "content": "e"},
        {**CALL, "call_id": "c2"},
        {**OUTPUT, "call_id": "c2"},
    ]
)


class Room:
    """Fits so many items, and counts how often it was asked."""

    def __init__(self, items: int) -> None:
        self._items = items
        self.asked = 0

    async def fits(self, items: Sequence[PlacedItem]) -> bool:
        self.asked += 1
        return len(items) <= self._items


@pytest.mark.parametrize(
    ("room", "kept"),
    [
        (10, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]),
        (9, [0, 5, 6, 7, 8, 9]),
        (6, [0, 5, 6, 7, 8, 9]),
        (5, [0, 7, 8, 9]),
        (1, [0, 7, 8, 9]),
    ],
)
async def test_whole_turns_go_and_instructions_stay(room: int, kept: list[int]) -> None:
    found = await drop_oldest(ITEMS, Room(room).fits)
    assert [ITEMS.index(placed) for placed in found] == kept
    # No output is left without its call.
    assert Conversation(None, found).messages


async def test_a_single_turn_is_never_cut() -> None:
    items = ITEMS[:5]
    assert await drop_oldest(items, Room(0).fits) == items


async def test_a_long_conversation_is_measured_a_few_times() -> None:
    items = read_input([{"role": "user", "content": str(number)} for number in range(1000)])
    room = Room(300)
    found = await drop_oldest(items, room.fits)
    assert list(found) == items[700:]
    assert room.asked <= 11
