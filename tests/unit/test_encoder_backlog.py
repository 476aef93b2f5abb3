"""Which rows run together: fair between calls, of like length, within the budget."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest

from services.mesh.errors import DeadlineError, MeshError, QueueFullError
from services.worker.engines.encoder.backlog import MAX_PADDED_SHARE, SHORT_TOKENS, Backlog, Place
from services.worker.engines.encoder.job import Job, Row
from services.worker.engines.encoder.places import CallPlaces


class Answers(list[Any]):
    """What jobs were answered with."""


def job(*lengths: int, answers: Answers | None = None) -> Job:
    taken = Answers() if answers is None else answers
    return Job([Row([1] * length) for length in lengths], taken.append)


def lengths(batch: Sequence[Place]) -> list[int]:
    return [place.length for place in batch]


def test_rows_of_all_jobs_share_a_batch() -> None:
    backlog = Backlog()
    for each in (job(5, 6), job(7), job(4)):
        backlog.add(each)
    assert lengths(backlog.next_batch(100)) == [4, 5, 6, 7]
    assert (len(backlog), backlog.jobs) == (0, 0)
    assert backlog.next_batch(100) == ()


def test_a_batch_keeps_within_its_budget_padding_included() -> None:
    backlog = Backlog()
    backlog.add(job(*[10] * 5, *[12] * 5))
    batch = backlog.next_batch(50)
    assert lengths(batch) == [10] * 5
    assert lengths(backlog.next_batch(50)) == [12] * 4
    assert lengths(backlog.next_batch(50)) == [12]


def test_a_row_longer_than_the_budget_runs_alone() -> None:
    backlog = Backlog()
    backlog.add(job(100, 5))
    assert lengths(backlog.next_batch(50)) == [100]
    assert lengths(backlog.next_batch(50)) == [5]


def test_the_nearest_lengths_come_first() -> None:
    backlog = Backlog()
    backlog.add(job(100))
    backlog.add(job(60, 95, 105, 160, 20))
    assert lengths(backlog.next_batch(330)) == [95, 100, 105]


def test_short_and_long_rows_do_not_share() -> None:
    backlog = Backlog()
    backlog.add(job(4, 4 + SHORT_TOKENS, 400, 210, 190))
    assert lengths(backlog.next_batch(10_000)) == [4, 20]
    assert lengths(backlog.next_batch(10_000)) == [210, 400]
    assert lengths(backlog.next_batch(10_000)) == [190]


def test_a_small_job_does_not_wait_for_all_of_a_large_one() -> None:
    backlog = Backlog()
    backlog.add(job(*[10] * 100))
    small = job(300)
    backlog.next_batch(100)
    backlog.add(small)
    two = [*backlog.next_batch(100), *backlog.next_batch(100)]
    assert small in [place.job for place in two]


def test_jobs_that_are_over_are_not_computed() -> None:
    backlog = Backlog()
    left, stays = job(5, 5), job(6)
    backlog.add(left)
    backlog.add(stays)
    left.leave()
    assert lengths(backlog.next_batch(100)) == [6]
    assert backlog.next_batch(100) == ()


@pytest.mark.parametrize("seed", range(20))
def test_every_row_runs_once_whatever_comes(seed: int) -> None:
    draw = random.Random(seed)
    backlog = Backlog()
    budget = draw.choice([16, 100, 1000])
    due: dict[tuple[int, int], Job] = {}
    waits: dict[int, int] = {}
    for _ in range(200):
        if draw.random() < 0.3:
            added = job(*[draw.randint(1, 120) for _ in range(draw.randint(1, 30))])
            backlog.add(added)
            due |= {(id(added), at): added for at in range(len(added.rows))}
            waits[id(added)] = 0
        jobs = backlog.jobs
        batch = backlog.next_batch(budget)
        ran = {id(place.job) for place in batch}
        for place in batch:
            del due[id(place.job), place.at]
        if len(batch) > 1:
            longest, shortest = max(lengths(batch)), min(lengths(batch))
            assert len(batch) * longest <= budget
            assert longest - shortest <= SHORT_TOKENS or shortest >= longest * MAX_PADDED_SHARE
        for key in {key for key, _ in due}:
            waits[key] = 0 if key in ran else waits[key] + 1
            # Everybody's turn comes before anybody's second but one.
            assert waits[key] <= 2 * (jobs + 10)
    while batch := backlog.next_batch(budget):
        for place in batch:
            del due[id(place.job), place.at]
    assert not due


def test_a_job_answers_once_in_the_order_of_its_rows() -> None:
    answers = Answers()
    asked = job(1, 2, 3, answers=answers)
    for at in (2, 0, 1):
        assert not answers
        asked.take(at, f"result {at}")
    assert answers == [["result 0", "result 1", "result 2"]]
    asked.fail(DeadlineError("late"))
    asked.take(0, "again")
    assert len(answers) == 1


def test_a_job_that_failed_or_was_left_takes_nothing() -> None:
    answers = Answers()
    failed, left = job(1, 2, answers=answers), job(1, answers=answers)
    error: MeshError = DeadlineError("late")
    failed.fail(error)
    failed.take(0, "late")
    left.leave()
    left.take(0, "unwanted")
    left.fail(error)
    assert answers == [error]


def test_places_bound_calls_and_what_they_hold() -> None:
    places = CallPlaces(2, max_characters=100)
    with places.place(1000):
        with pytest.raises(QueueFullError, match="1000 characters") as heavy, places.place(1):
            pass
        assert heavy.value.retry_after_s
    with places.place(60), places.place(40):
        assert places.taken == 2
        with pytest.raises(QueueFullError, match="2 calls"), places.place(0):
            pass
    assert places.taken == 0
