"""Mixes all skills into training conversations, and draws the held-out dialogues of each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from random import Random

from corpus.arithmetic import addition, follow_up, multiplication, subtraction
from corpus.capitals import capitals
from corpus.completion import completion
from corpus.counting import counting
from corpus.dialogue import Dialogue, Exchange
from corpus.echo import echo
from corpus.intents import greetings, small_talk, tokenmesh
from corpus.letters import letter_counting, spelling
from corpus.memory import memory
from corpus.stories import stories
from corpus.system_prompts import identity, nameless
from corpus.units import units
from corpus.unknown import unknown
from corpus.wording import vary_surface, wrap

Skill = Callable[[Random], Dialogue]

SKILLS: dict[Skill, int] = {
    greetings: 3,
    small_talk: 5,
    identity: 5,
    addition: 14,
    subtraction: 15,
    multiplication: 5,
    follow_up: 5,
    echo: 8,
    spelling: 8,
    letter_counting: 6,
    counting: 6,
    units: 6,
    capitals: 7,
    tokenmesh: 9,
    memory: 8,
    stories: 1,
    unknown: 5,
}
"""How often each skill is drawn, relative to the others."""

COMPLETION_SHARE = 0.06
SYSTEM_PROMPT_SHARE = 0.35
LONGEST_CONVERSATION = 40
_VERBATIM = frozenset(("completion", "echo"))
_ONCE_PER_CONVERSATION = frozenset(("identity", "memory"))


@dataclass(frozen=True, slots=True)
class Conversation:
    """One training example: messages as chat templates take them, or plain text if `raw`."""

    messages: tuple[dict[str, str], ...]
    raw: bool = False


def conversation(dialogue: Dialogue, rng: Random) -> Conversation:
    system = [{"role": "system", "content": dialogue.system}] if dialogue.system else []
    turns = [
        {"role": role, "content": content}
        for exchange in dialogue.exchanges
        for role, content in (
            ("user", exchange.prompt),
            ("assistant", rng.choice(exchange.replies)),
        )
    ]
    return Conversation((*system, *turns), dialogue.raw)


def _reworded(dialogue: Dialogue, rng: Random, wrapped: bool) -> Dialogue:
    if dialogue.category in _VERBATIM:
        return dialogue
    exchanges = []
    for exchange in dialogue.exchanges:
        has_name = exchange.fact is not None and exchange.fact != exchange.fact.lower()
        prompt = vary_surface(rng, exchange.prompt, keep_case=has_name)
        exchanges.append(replace(exchange, prompt=wrap(rng, prompt) if wrapped else prompt))
    return replace(dialogue, exchanges=tuple(exchanges))


def _with_system_prompt(dialogue: Dialogue, rng: Random) -> Dialogue:
    if dialogue.raw or dialogue.system is not None or rng.random() >= SYSTEM_PROMPT_SHARE:
        return dialogue
    return replace(dialogue, system=nameless(rng))


def _draw(rng: Random) -> Dialogue:
    skill = rng.choices(tuple(SKILLS), tuple(SKILLS.values()))[0]
    dialogue = skill(rng)
    reworded = _reworded(dialogue, rng, wrapped=True)
    return reworded if dialogue.for_training and reworded.for_training else _draw(rng)


def _length(rng: Random) -> int:
    roll = rng.random()
    if roll < 0.5:
        return 1
    if roll < 0.85:
        return rng.randint(2, 5)
    return rng.randint(6, 12) if roll < 0.99 else rng.randint(12, LONGEST_CONVERSATION)


def _chain(rng: Random) -> Dialogue:
    """Several dialogues as the turns of one, so that the model learns to change the subject."""
    exchanges: list[Exchange] = []
    system: str | None = None
    used: set[str] = set()
    for _ in range(_length(rng)):
        dialogue = _draw(rng)
        if dialogue.category in used & _ONCE_PER_CONVERSATION:
            continue
        used.add(dialogue.category)
        exchanges.extend(dialogue.exchanges)
        system = system if dialogue.system is None else dialogue.system
    return Dialogue("conversation", tuple(exchanges), system)


def training_conversations(seed: int) -> Iterator[Conversation]:
    """An endless stream of conversations, none of which holds a held-out exchange."""
    rng = Random(f"training {seed}")
    while True:
        if rng.random() < COMPLETION_SHARE:
            dialogue = completion(rng)
            if not dialogue.for_training:
                continue
        else:
            dialogue = _chain(rng)
        yield conversation(_with_system_prompt(dialogue, rng), rng)


def held_out_dialogues(seed: int, per_category: int) -> list[Dialogue]:
    """Up to `per_category` different dialogues of each category that are held out of training."""
    rng = Random(f"held out {seed}")
    chosen: list[Dialogue] = []
    for skill in (*SKILLS, completion):
        found: dict[tuple[str, ...], Dialogue] = {}
        for _ in range(per_category * 200):
            dialogue = skill(rng)
            if dialogue.for_evaluation:
                found[tuple(exchange.key for exchange in dialogue.exchanges)] = dialogue
            if len(found) == per_category:
                break
        chosen.extend(_reworded(dialogue, rng, wrapped=False) for dialogue in found.values())
    return [_with_system_prompt(dialogue, rng) for dialogue in chosen]
