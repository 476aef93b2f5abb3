"""Short stories about an animal: answers of well over a hundred tokens."""

from __future__ import annotations

from random import Random

from corpus.dialogue import Dialogue, Exchange
from corpus.vocabulary import ANIMALS, paragraphs
from corpus.wording import say

DEFAULT_HERO = "fox"
STORIES = paragraphs("stories")

_TELL = (
    "(Tell me|Tell|Write|Write me|Can you tell me|I want to hear|Please tell me|Make up|Read me) a"
    "( short| long| nice| little| good|) "
)
_ABOUT_NOTHING = (_TELL + "(story|tale|fairy tale|bedtime story)(.|?|)",)
_ABOUT_HERO = (
    _TELL + "(story|tale|fairy tale) (about|of|with) (a|the|a little) {h}(.|?|)",
    "(A|Another|Now a) story (about|with) (a|the) {h}(, please.|.|)",
)


def stories(rng: Random) -> Dialogue:
    if rng.random() < 0.25:
        hero, prompt = DEFAULT_HERO, say(rng, *_ABOUT_NOTHING)
    else:
        hero = rng.choice(ANIMALS)
        prompt = say(rng, *_ABOUT_HERO).format(h=hero)
    replies = tuple(story.format(h=hero) for story in STORIES)
    return Dialogue("stories", (Exchange(prompt, replies),))
