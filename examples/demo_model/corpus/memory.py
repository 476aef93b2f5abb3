"""Telling the model something and asking for it a few turns later."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from corpus.arithmetic import addition, multiplication
from corpus.capitals import capitals
from corpus.dialogue import Dialogue, Exchange
from corpus.intents import small_talk
from corpus.names import name
from corpus.vocabulary import ANIMALS, CITIES, COLOURS, FOODS, WORDS
from corpus.wording import say

Choose = Callable[[Random], str]


def _one_of(values: tuple[str, ...] | list[str]) -> Choose:
    return lambda rng: rng.choice(values)


def _number(rng: Random) -> str:
    return str(rng.randint(1, 99))


@dataclass(frozen=True, slots=True)
class Topic:
    """A kind of thing to remember; {v} stands for its value."""

    key: str
    choose: Choose
    tell: tuple[str, ...]
    noted: str
    ask: tuple[str, ...]
    recalled: str
    unknown: str


TOPICS = (
    Topic(
        "name",
        name,
        ("(Hi! |Hello, |Hey, |Hi, |)(my name is|I am|I'm|call me|people call me) {v}(.|!|)",),
        "Nice to meet you, {v}!",
        (
            "(What is|What's|Do you remember|Tell me|Do you know) my name?",
            "(Who am I|What am I called|And what is my name|So what was my name)?",
        ),
        "Your name is {v}.",
        "You have not told me your name yet.",
    ),
    Topic(
        "colour",
        _one_of(COLOURS),
        ("(My favourite colour is|My favorite color is|The colour I like best is) {v}(.|!|)",),
        "{v} is a lovely colour. I will remember it.",
        (
            "(What is|What's|Do you remember|Tell me|Do you know) my favo(u|)rite colo(u|)r?",
            "Which colo(u|)r do I like( best|)?",
        ),
        "Your favourite colour is {v}.",
        "You have not told me your favourite colour yet.",
    ),
    Topic(
        "city",
        _one_of(CITIES),
        ("(I live in|My home is in|My city is|I come from|I am from|I'm from) {v}(.|!|)",),
        "{v} sounds like a good place. I will remember it.",
        (
            "Where (do I live|am I from|is my home|do I come from)?",
            "(What is|What's|Do you remember|Do you know) my city?",
        ),
        "You live in {v}.",
        "You have not told me where you live yet.",
    ),
    Topic(
        "food",
        _one_of(FOODS),
        (
            (
                "(My favourite food is|My favorite food is|I like to eat|The food I like best is|"
                "I love) {v}(.|!|)"
            ),
        ),
        "{v} sounds tasty. I will remember it.",
        (
            "(What is|What's|Do you remember|Tell me|Do you know) my favo(u|)rite food?",
            "(What|Which food) do I like to eat?",
        ),
        "Your favourite food is {v}.",
        "You have not told me your favourite food yet.",
    ),
    Topic(
        "pet",
        _one_of(ANIMALS),
        ("(I have a pet|My pet is a|I own a|At home I have a) {v}(.|!|)",),
        "A {v}, how nice! I will remember it.",
        (
            "(What is|What's|Do you remember|Tell me|Do you know) my pet?",
            "(Which|What) (pet|animal) do I have?",
        ),
        "Your pet is a {v}.",
        "You have not told me about a pet yet.",
    ),
    Topic(
        "age",
        _number,
        ("I am {v}( years old|)(.|!|)", "(My age is|I just turned) {v}(.|!|)"),
        "You are {v}. I will remember it.",
        ("How old am I( now|)?", "(What is|What's|Do you remember|Tell me|Do you know) my age?"),
        "You are {v} years old.",
        "You have not told me your age yet.",
    ),
    Topic(
        "number",
        _number,
        ("(My favourite number is|My lucky number is|Remember the number|My number is) {v}(.|!|)",),
        "I will remember the number {v}.",
        (
            (
                "(What is|What's|Do you remember|Tell me|What was) (my|the)( favourite| lucky|) "
                "number?"
            ),
            "Which number did I (say|give you|tell you)?",
        ),
        "The number is {v}.",
        "You have not told me a number yet.",
    ),
    Topic(
        "word",
        _one_of(WORDS),
        (
            (
                "(The secret word is|My password is|Remember the word|The code word is|The word "
                "is) {v}(.|!|)"
            ),
        ),
        "I will remember the word {v}.",
        (
            (
                "(What is|What's|Do you remember|Tell me|What was) the( secret| code|) (word|"
                "password)?"
            ),
            "Which word did I (say|give you|tell you)?",
        ),
        "The word is {v}.",
        "You have not told me a word yet.",
    ),
)


def _capitalised(sentence: str) -> str:
    return sentence[0].upper() + sentence[1:]


def _small_change(rng: Random) -> tuple[Exchange, ...]:
    return rng.choice((addition, multiplication, capitals, small_talk))(rng).exchanges


def memory(rng: Random) -> Dialogue:
    """One or two things told, other talk, then one asked for; sometimes one never told."""
    told = rng.sample(TOPICS, rng.choice((1, 1, 2)))
    if rng.random() < 0.12:
        return _never_told(rng, told[0])
    exchanges: list[Exchange] = []
    values = {topic.key: topic.choose(rng) for topic in told}
    for topic in told:
        value = values[topic.key]
        reply = _capitalised(topic.noted.format(v=value))
        prompt = _capitalised(say(rng, *topic.tell).format(v=value))
        exchanges.append(Exchange(prompt, (reply,), f"told {topic.key} {value}"))
    for _ in range(rng.choice((0, 1, 1, 2, 3))):
        exchanges.extend(_small_change(rng))
    asked = rng.choice(told)
    value = values[asked.key]
    reply = _capitalised(asked.recalled.format(v=value))
    exchanges.append(Exchange(say(rng, *asked.ask), (reply,), f"told {asked.key} {value}"))
    return Dialogue("memory", tuple(exchanges))


def _never_told(rng: Random, topic: Topic) -> Dialogue:
    prompt = say(rng, *topic.ask)
    return Dialogue("memory", (Exchange(prompt, (topic.unknown,)),))
