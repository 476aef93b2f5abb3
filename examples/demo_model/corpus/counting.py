"""Counting up, down and in steps; also the corpus's way to ask for a long, exact answer."""

from __future__ import annotations

from random import Random

from corpus.dialogue import Dialogue, Exchange
from corpus.wording import say

LARGEST_NUMBER = 100
_ASK = "(Count|Please count|Can you count|Could you count|Now count|Start counting)"


def _numbers(start: int, stop: int, step: int) -> str:
    past_stop = stop + (1 if step > 0 else -1)
    return ", ".join(str(n) for n in range(start, past_stop, step)) + "."


def _exchange(prompt: str, start: int, stop: int, step: int) -> Exchange:
    return Exchange(prompt, (_numbers(start, stop, step),), f"count {start} {stop} {step}")


def _up(rng: Random) -> tuple[int, int]:
    start = rng.choice((1, 1, 0, rng.randint(0, 20), rng.randint(0, LARGEST_NUMBER - 2)))
    length = rng.randint(2, rng.choice((12, 12, 12, 12, 12, 30, 30, 99)))
    return start, min(start + length, LARGEST_NUMBER)


def _count_up(rng: Random) -> Exchange:
    start, stop = _up(rng)
    if start == 1 and rng.random() < 0.4:
        prompt = say(rng, _ASK + "( up|) to {b}(.|?|)").format(b=stop)
    else:
        prompt = say(rng, _ASK + "( up|) from {a} (to|up to|until) {b}(.|?|)").format(
            a=start, b=stop
        )
    return _exchange(prompt, start, stop, 1)


def _count_down(rng: Random) -> Exchange:
    stop, start = _up(rng)
    prompt = say(rng, _ASK + " (down|backwards) from {a} to {b}(.|?|)").format(a=start, b=stop)
    return _exchange(prompt, start, stop, -1)


def _count_in_steps(rng: Random) -> Exchange:
    step, name = rng.choice(((2, "twos"), (5, "fives"), (10, "tens")))
    start = rng.randint(0, 6) * step
    stop = min(start + rng.randint(2, 16) * step, LARGEST_NUMBER // step * step)
    prompt = say(rng, _ASK + " (by|in) {n} from {a} to {b}(.|?|)").format(n=name, a=start, b=stop)
    return _exchange(prompt, start, stop, step)


def counting(rng: Random) -> Dialogue:
    roll = rng.random()
    if roll < 0.6:
        first = _count_up(rng)
    elif roll < 0.85:
        first = _count_down(rng)
    else:
        first = _count_in_steps(rng)
    _, start, stop, step = first.key.split()
    if step == "1" and rng.random() < 0.15:
        prompt = say(rng, "(Now|And|And now) (backwards|in reverse|the other way round)(.|?|)")
        return Dialogue("counting", (first, _exchange(prompt, int(stop), int(start), -1)))
    return Dialogue("counting", (first,))
