"""The likeliest of several outputs, all at the end."""

from __future__ import annotations

from services.mesh.errors import InternalError
from services.worker.engines.base import Chunk, Failed, Finished, FinishReason, Started, Timing
from services.worker.engines.transformers.best_of import BestOf


def end(tokens: int) -> Finished:
    return Finished(FinishReason.LENGTH, 3, tokens, 0, Timing(0.0, 0.0, 0.0))


def test_the_mean_decides_and_nothing_comes_before_the_last_end() -> None:
    best = BestOf("key", draws=3, choices=2)
    # The sums alone would rank them 0, 1, 2.
    for index, (logprob, tokens) in enumerate([(-2.0, 2), (-3.0, 10), (-4.0, 8)]):
        best.add_logprob(index, logprob)
        assert best.take(index, [Started(3), Chunk(str(index), (index,))]) == []
        released = best.take(index, [end(tokens)])
        assert bool(released) == (index == 2)
    assert [(each.choice_index, each.number) for each in released] == [
        *((0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2))
    ]
    chunks = [each.event for each in released if isinstance(each.event, Chunk)]
    assert [chunk.text for chunk in chunks] == ["1", "2"]
    ends = [each.event for each in released if isinstance(each.event, Finished)]
    # 10 of its own, and 2 of the one that is not returned.
    assert [each.completion_tokens for each in ends] == [12, 8]


def test_equally_likely_ones_keep_their_order() -> None:
    best = BestOf("key", draws=3, choices=1)
    for index in (2, 0, 1):
        best.add_logprob(index, -1.0)
        released = best.take(index, [Chunk(str(index), (index,)), end(1)])
    assert isinstance(released[0].event, Chunk)
    assert released[0].event.text == "0"


def test_one_that_fails_fails_every_choice_once() -> None:
    best = BestOf("key", draws=3, choices=2)
    error = InternalError("broken")
    failed = best.take(1, [Started(3), Failed(error)])
    assert [(each.choice_index, each.number) for each in failed] == [(0, 0), (1, 0)]
    assert all(isinstance(each.event, Failed) for each in failed)
    assert best.take(0, [end(1)]) == []
    assert best.take(2, [Failed(error)]) == []
