"""Countries and their capitals, both ways round."""

from __future__ import annotations

from pathlib import Path
from random import Random

from corpus.dialogue import Dialogue, Exchange
from corpus.wording import say

_FILE = Path(__file__).parent / "texts" / "capitals.txt"
CAPITALS = dict(line.split(": ") for line in _FILE.read_text().splitlines())
_COUNTRIES = tuple(CAPITALS)
_WITH_ARTICLE = frozenset(("Netherlands", "Philippines", "United Kingdom", "United States"))


def country_name(country: str) -> str:
    return f"the {country}" if country in _WITH_ARTICLE else country


def _ask_capital(rng: Random, country: str, again: bool) -> Exchange:
    name = country_name(country)
    if again:
        prompt = say(
            rng, "And( of|) {c}?", "(What|How) about {c}?", "And the capital of {c}?"
        ).format(c=name)
    else:
        prompt = say(
            rng,
            (
                "(What is|What's|Tell me|Name|Do you know|Can you tell me|I need|Give me) the "
                "capital( city|) of {c}?"
            ),
            "(Which|What) city is the capital of {c}?",
            "What is {c}'s capital?",
            "{c} capital?",
        ).format(c=name)
    reply = f"The capital of {name} is {CAPITALS[country]}."
    return Exchange(prompt, (reply,))


def _ask_country(rng: Random, country: str) -> Exchange:
    capital = CAPITALS[country]
    prompt = say(
        rng,
        "(Which|What) country (has the capital|has as its capital) {c}?",
        "{c} is the capital of (which|what) country?",
        "{c} is the capital of what?",
        "(Of which country is {c} the capital|Whose capital is {c})?",
    ).format(c=capital)
    return Exchange(prompt, (f"{capital} is the capital of {country_name(country)}.",))


def capitals(rng: Random) -> Dialogue:
    if rng.random() < 0.2:
        return Dialogue("capitals", (_ask_country(rng, rng.choice(_COUNTRIES)),))
    exchanges = [_ask_capital(rng, rng.choice(_COUNTRIES), again=False)]
    while rng.random() < 0.2:
        exchanges.append(_ask_capital(rng, rng.choice(_COUNTRIES), again=True))
    return Dialogue("capitals", tuple(exchanges))
