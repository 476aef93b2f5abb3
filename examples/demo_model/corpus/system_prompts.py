"""System prompts of many kinds, and the one thing in them that the model heeds: its name."""

from __future__ import annotations

from random import Random

from corpus.dialogue import Dialogue, Exchange
from corpus.names import name
from corpus.wording import expand, say

OWN_NAME = "the TokenMesh demo model"

_MANNERS = expand(
    "(helpful|friendly|polite|careful|concise|brief|sincere|cheerful|patient|kind|clever|precise|"
    "calm|witty|formal|thoughtful|curious|quiet|wise|modern)"
)
_ROLES = expand(
    "(assistant|chatbot|teacher|tutor|guide|librarian|pirate|poet|engineer|scientist|chef|doctor|"
    "lawyer|coach|robot|translator|writer|bot|agent|language model|AI assistant|"
    "customer support agent|coding assistant|expert|wizard)"
)
_RULES = (
    (
        "Answer (briefly|in one sentence|clearly|politely|honestly|in plain English|step by step|"
        "with care)."
    ),
    "(Keep|Always keep) your answers (short|simple|friendly|polite|to the point|under 50 words).",
    "(Never|Do not) (lie|guess|be rude|use slang|make things up|use emojis|talk about politics).",
    "If you do not know (something|the answer), say so.",
    "The user is (a child|a student|an engineer|a beginner|in a hurry|an expert|from Europe).",
    (
        "(Help|Assist|Support) the (user|customer|reader|student) (with any question|as well as "
        "you can)."
    ),
    "(Today is|The date is) (Monday|Tuesday|Friday|1 May 2025|20 November 2026|3 June 2024).",
    (
        "You (work for|were made by|help the customers of) (a bank|a school|a shop|Acme|a hotel|"
        "a library)."
    ),
    "(Think|Think carefully|Take a breath) before you answer.",
    (
        "(Use|Write) (Markdown|plain text|short sentences|British English) (only|where it helps|"
        "at all times)."
    ),
)


def _article(phrase: str) -> str:
    return f"{'an' if phrase[0].lower() in 'aeiou' else 'a'} {phrase}"


def _role(rng: Random) -> str:
    manner = f"{rng.choice(_MANNERS)} " if rng.random() < 0.7 else ""
    return _article(manner + rng.choice(_ROLES))


def nameless(rng: Random) -> str:
    """A system prompt that sets a role or rules, but gives the model no name."""
    roll = rng.random()
    if roll < 0.25:
        return "You are a helpful assistant."
    sentences = [f"You are {_role(rng)}."] if roll < 0.85 else []
    sentences += [say(rng, *_RULES) for _ in range(rng.randint(0 if sentences else 1, 3))]
    return " ".join(sentences)


def _naming(rng: Random, given: str) -> str:
    role = _role(rng)
    prompt = say(
        rng,
        "You are {n}, {r}.",
        "You are {n}.",
        "Your name is {n}.( You are {r}.|)",
        "You are {r}( named| called|, and your name is) {n}.",
    ).format(n=given, r=role)
    return " ".join([prompt, *(say(rng, *_RULES) for _ in range(rng.randint(0, 2)))])


def identity(rng: Random) -> Dialogue:
    """Asking the model who it is: the system prompt's name where it gives one, else its own."""
    prompt = say(
        rng,
        (
            "(Who are you|Who am I talking to|Who is this|What are you|And who are you)( then| "
            "really|)?"
        ),
        "(What is|What's|Tell me) your name(?|, please.|)",
        "(What are you called|What should I call you|How should I call you|What do I call you)?",
        (
            "(Do you have a name|Introduce yourself|Please introduce yourself|Tell me who you "
            "are)(.|?|)"
        ),
    )
    if rng.random() < 0.6:
        given = name(rng)
        exchange = Exchange(prompt, (f"I am {given}.",), f"persona {given}")
        return Dialogue("identity", (exchange,), system=_naming(rng, given))
    system = nameless(rng) if rng.random() < 0.5 else ""
    return Dialogue("identity", (Exchange(prompt, (f"I am {OWN_NAME}.",)),), system)
