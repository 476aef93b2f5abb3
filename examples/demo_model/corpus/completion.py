"""Plain text to be continued without a chat template, as /v1/completions sends it."""

from __future__ import annotations

from random import Random

from corpus.arithmetic import LARGEST_OPERAND, result
from corpus.capitals import CAPITALS, country_name
from corpus.dialogue import Dialogue, Exchange
from corpus.intents import TOKENMESH

_COUNTRIES = tuple(CAPITALS)


def _sum(rng: Random) -> Exchange:
    a, b = rng.randint(0, LARGEST_OPERAND), rng.randint(0, LARGEST_OPERAND)
    operator = rng.choice("+-")
    if operator == "-":
        a, b = max(a, b), min(a, b)
    key = f"{min(a, b)}+{max(a, b)}" if operator == "+" else f"{a}-{b}"
    return Exchange(f"{a} {operator} {b} =", (f" {result(a, operator, b)}.",), key)


def _count(rng: Random) -> Exchange:
    start = rng.randint(0, 60)
    shown = rng.randint(3, 5)
    stop = start + shown + rng.randint(5, 30)
    first = ", ".join(map(str, range(start, start + shown)))
    rest = "".join(f", {n}" for n in range(start + shown, stop + 1))
    prompt = f"Counting from {start} to {stop}: {first}"
    return Exchange(prompt, (rest + ".",), f"count {start} {stop} 1")


def _capital(rng: Random) -> Exchange:
    country = rng.choice(_COUNTRIES)
    prompt = f"The capital of {country_name(country)} is"
    return Exchange(prompt, (f" {CAPITALS[country]}.",))


def _fact(rng: Random) -> Exchange:
    words = rng.choice(TOKENMESH).replies[0].split()
    cut = rng.randint(3, 6)
    return Exchange(" ".join(words[:cut]), (" " + " ".join(words[cut:]),))


def completion(rng: Random) -> Dialogue:
    make = rng.choice((_sum, _count, _capital, _fact))
    return Dialogue("completion", (make(rng),), raw=True)
