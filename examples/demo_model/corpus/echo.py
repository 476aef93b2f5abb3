"""Repeating what the user says: the plainest exercise in copying, which other skills need."""

from __future__ import annotations

from random import Random

from corpus.dialogue import Dialogue, Exchange
from corpus.letters import invented_word
from corpus.vocabulary import NAMES, WORDS
from corpus.wording import say


def _piece(rng: Random) -> str:
    roll = rng.random()
    if roll < 0.5:
        return rng.choice(WORDS)
    if roll < 0.7:
        return invented_word(rng)
    return rng.choice(NAMES) if roll < 0.8 else str(rng.randint(0, rng.choice((9, 99, 9999))))


def echo(rng: Random) -> Dialogue:
    text = " ".join(_piece(rng) for _ in range(rng.randint(1, rng.choice((3, 10)))))
    prompt = say(
        rng,
        "(Repeat|Repeat after me|Please repeat|Echo|Say this|Say|Copy|Please say|Write): {t}",
        '(Repeat|Please repeat|Say|Echo|Can you say|Copy|Write|Repeat the words) "{t}"(.|)',
    ).format(t=text)
    return Dialogue("echo", (Exchange(prompt, (text,), f"echo {text}"),))
