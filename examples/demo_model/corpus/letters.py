"""Spelling words, and counting their letters one by one."""

from __future__ import annotations

from random import Random

from corpus.dialogue import Dialogue, Exchange
from corpus.vocabulary import WORDS
from corpus.wording import expand, say

_ONSETS = expand(
    "(b|c|d|f|g|h|j|k|l|m|n|p|r|s|t|v|w|y|z|br|ch|cl|cr|dr|fl|gr|pl|pr|sh|sl|sp|st|str|th|tr)"
)
_VOWELS = expand("(a|e|i|o|u|a|e|i|o|u|ai|ea|ee|ie|oo|ou)")
_CODAS = expand("(|||b|ck|d|g|l|ll|m|n|nd|ng|nt|p|r|rd|rs|s|sh|ss|st|t|th|x|y)")
_ASK = "(|Please |Can you |Could you |How do you |How do I |Now )"


def invented_word(rng: Random) -> str:
    """A pronounceable word, so that spelling is learnt from tokens rather than word by word."""
    syllables = rng.choice((1, 1, 2, 2, 3))
    return "".join(
        rng.choice(_ONSETS) + rng.choice(_VOWELS) + rng.choice(_CODAS) for _ in range(syllables)
    )


def _word(rng: Random) -> str:
    return rng.choice(WORDS) if rng.random() < 0.6 else invented_word(rng)


def _quoted(rng: Random, word: str) -> str:
    return rng.choice((word, word, word, f'"{word}"', f"'{word}'"))


def spelled(word: str) -> str:
    return "-".join(word)


def _spell(rng: Random, word: str, again: bool) -> Exchange:
    if again:
        prompt = say(rng, "(And|What about|How about|Now|And now) {w}?")
    else:
        prompt = say(
            rng,
            _ASK + "spell( the word|) {w}(.|?|)",
            "(What is the spelling of|Spelling of) {w}?",
            "How is {w} spelled?",
        )
    prompt = prompt.format(w=_quoted(rng, word))
    return Exchange(prompt[0].upper() + prompt[1:], (spelled(word) + ".",), f"word {word}")


def spelling(rng: Random) -> Dialogue:
    exchanges = [_spell(rng, _word(rng), again=False)]
    while rng.random() < 0.2:
        exchanges.append(_spell(rng, _word(rng), again=True))
    return Dialogue("spelling", tuple(exchanges))


def _count_all(rng: Random, word: str) -> Exchange:
    prompt = say(
        rng,
        "How many letters (are in|are there in|has) {w}?",
        "How many letters does {w} have?",
        "(Count|Please count|Can you count) the letters (in|of) {w}(.|?|)",
        "(How long is|What is the length of) the word {w}?",
    )
    steps = ", ".join(f"{letter} {index}" for index, letter in enumerate(word, 1))
    reply = f"{steps}: {word} has {len(word)} letters."
    return Exchange(prompt.format(w=_quoted(rng, word)), (reply,), f"word {word}")


def _count_one(rng: Random, word: str) -> Exchange:
    letter = rng.choice(word) if rng.random() < 0.9 else rng.choice("abcdefghijklmnopqrstuvwxyz")
    prompt = say(
        rng,
        "How (many times|often) does the letter {x} (occur|appear) in {w}?",
        "How many {x}'s are( there|) in {w}?",
        "Count the letter {x} in {w}(.|)",
    )
    seen = 0
    steps = []
    for c in word:
        seen += c == letter
        steps.append(f"{c} {seen}")
    times = "once" if seen == 1 else f"{seen} times"
    reply = f"{', '.join(steps)}: the letter {letter} occurs {times} in {word}."
    return Exchange(prompt.format(x=letter, w=_quoted(rng, word)), (reply,), f"word {word}")


def letter_counting(rng: Random) -> Dialogue:
    count = _count_all if rng.random() < 0.6 else _count_one
    return Dialogue("letter counting", (count(rng, _word(rng)),))
