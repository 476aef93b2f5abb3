"""Questions beyond the model, which it should decline rather than answer with an invention."""

from __future__ import annotations

from random import Random

from corpus.dialogue import Dialogue, Exchange
from corpus.vocabulary import WORDS
from corpus.wording import say

_SUBJECTS = tuple(word for word in WORDS if word not in ("mesh", "token", "worker"))
DECLINES = (
    "I do not know that. I am only a small demonstration model: ask me about sums, spelling, "
    "counting, units, "
    "capitals or TokenMesh.",
)
TOO_LARGE = ("That is too much for me: I only work with numbers below 100.",)

_PROMPTS = (
    (
        "(Who|When was it that someone) (wrote|invented|discovered|painted|built|won|found) (the|"
        "a|the first) {w}?"
    ),
    (
        "(How do I|How can I|How do you) (cook|fix|build|paint|clean|buy|sell|repair|draw|grow|"
        "bake) (a|the|my) {w}?"
    ),
    "(What is|What's|Explain|Define|Describe) (a|an|the) {w}?",
    (
        "(What is the meaning of|What is the colour of|What is the price of|What is the weight "
        "of) (a|the) {w}?"
    ),
    "Why (is|are|does|do) the {w} (so|not) {v}?",
    "(Translate|Say) {w} (in|into|to) (French|German|Spanish|Italian|Latin|Chinese)(.|)",
    (
        "Write (a poem|a song|an essay|a letter|code|a function|an email|a haiku) (about|for|on) "
        "(a|the|my) {w}(.|)"
    ),
    "(Who|Where|When) (is|was) {w} {v}?",
    "(What do you think|What is your opinion|What can you say) (of|about) {w}( and {v}|)?",
    "(Where|When|How) (can|did|will) (I|we|they|people) (find|see|meet|get|use) (a|the) {w}?",
    "(Summarise|Summarize|Review|Analyse) the (book|film|text|history) (of|about) the {w}(.|)",
    "(Give|Tell) me (some|two|three|a few) (facts|tips|ideas) (about|on|for) {w}(.|)",
    "(Should I|Can I|May I) (eat|buy|use|take|sell) (a|the|my) {w}( {v}|)?",
    "Who is the (president|king|queen|mayor|author|singer|captain) of (the|) {w}?",
)


def _larger(rng: Random) -> Exchange:
    a, b = (
        rng.randint(100, rng.choice((200, 999, 9999, 99999))),
        rng.randint(2, rng.choice((20, 99, 999, 9999))),
    )
    if rng.random() < 0.4:
        a, b = b, a
    verb = rng.choice((" + ", " - ", " * ", "+", "-", "*", " plus ", " minus ", " times "))
    prompt = say(rng, "(What is |What's |How much is |Calculate |){a}{v}{b}?").format(
        a=a, v=verb, b=b
    )
    return Exchange(prompt, TOO_LARGE)


def unknown(rng: Random) -> Dialogue:
    if rng.random() < 0.2:
        return Dialogue("unknown", (_larger(rng),))
    prompt = say(rng, *_PROMPTS).format(w=rng.choice(_SUBJECTS), v=rng.choice(_SUBJECTS))
    return Dialogue("unknown", (Exchange(prompt, DECLINES),))
