"""Questions that have set answers, read from texts/.

A block of lines is one intent: `ask:` gives patterns of its prompts, `reply:` each answer that
counts as right. `about: subject` stands for the questions that fit any part of a system, and
`let name: text` names a text that later patterns quote as $name.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from random import Random
from string import Template

from corpus.dialogue import Dialogue, Exchange
from corpus.wording import say

_TEXTS = Path(__file__).parent / "texts"
_ABOUT = (
    "(What is|What's|What are|Explain|Describe|Define|Tell me about|What do you know about) "
    "({subject})(?|.|)",
    "(What does|What do) ({subject}) do( exactly|)?",
    "What (is|are) ({subject}) (for|good for|used for)?",
    "(Why do I need|Why is there|What is the job of|What is the role of|What is the purpose of) "
    "({subject})?",
    "(Can you|Could you|Please) (explain|describe) ({subject})( to me| briefly|)(?|.|)",
)


@dataclass(frozen=True, slots=True)
class Intent:
    """Patterns of prompts that all mean the same, and the replies that answer them."""

    prompts: tuple[str, ...]
    replies: tuple[str, ...]


def _parse(text: str) -> tuple[Intent, ...]:
    """Raises ValueError at a line of another kind."""
    named: dict[str, str] = {}
    intents: list[Intent] = []
    for block in text.strip().split("\n\n"):
        prompts: list[str] = []
        replies: list[str] = []
        for line in block.splitlines():
            kind, _, value = line.partition(": ")
            match kind.split():
                case ["let", name]:
                    named[name] = value
                case ["about"]:
                    prompts.extend(question.format(subject=value) for question in _ABOUT)
                case ["ask"]:
                    prompts.append(Template(value).substitute(named))
                case ["reply"]:
                    replies.append(value)
                case _:
                    raise ValueError(f"not a line of an intent: {line}")
        if prompts:
            intents.append(Intent(tuple(prompts), tuple(replies)))
    return tuple(intents)


def read_intents(name: str) -> tuple[Intent, ...]:
    return _parse((_TEXTS / f"{name}.txt").read_text())


GREETINGS = read_intents("greetings")
SMALL_TALK = read_intents("small_talk")
TOKENMESH = read_intents("tokenmesh")


def _dialogue(rng: Random, category: str, intents: tuple[Intent, ...]) -> Dialogue:
    intent = rng.choice(intents)
    prompt = say(rng, *intent.prompts)
    return Dialogue(category, (Exchange(prompt[0].upper() + prompt[1:], intent.replies),))


def greetings(rng: Random) -> Dialogue:
    return _dialogue(rng, "greetings", GREETINGS)


def small_talk(rng: Random) -> Dialogue:
    return _dialogue(rng, "small talk", SMALL_TALK)


def tokenmesh(rng: Random) -> Dialogue:
    return _dialogue(rng, "TokenMesh", TOKENMESH)
