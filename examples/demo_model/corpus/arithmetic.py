"""Sums, differences and products, and the follow-up questions that build on the last result."""

from __future__ import annotations

from random import Random

from corpus.dialogue import Dialogue, Exchange
from corpus.wording import expand, say

LARGEST_OPERAND = 99
LARGEST_FACTOR = 10

_WORDS = expand("(zero|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve)")
_ASK = "(What is |What's |How much is |Calculate |Compute |Work out |Solve |Can you tell me what |)"
_PROMPTS = {
    "+": (
        _ASK + "{a} + {b}?",
        _ASK + "{a} plus {b}?",
        "(Add|Can you add|Please add) {a} (and|to|plus) {b}.",
        "(What is the sum of|The sum of|Sum) {a} and {b}?",
        "{a}+{b}(=|=?|?|)",
        "{a} + {b} =( ?|)",
    ),
    "-": (
        _ASK + "{a} - {b}?",
        _ASK + "{a} minus {b}?",
        "(Subtract|Take|Please subtract) {b} from {a}.",
        "(What is the difference of|The difference of) {a} and {b}?",
        "{a}-{b}(=|=?|?|)",
        "{a} - {b} =( ?|)",
    ),
    "*": (
        _ASK + "{a} * {b}?",
        _ASK + "{a} times {b}?",
        _ASK + "{a} x {b}?",
        "(Multiply|Please multiply) {a} (by|and|with) {b}.",
        "(What is the product of|The product of) {a} and {b}?",
        "{a}*{b}(=|=?|?|)",
    ),
}
_NEXT = {
    "+": (
        "(and |And |Now |And now |)(plus|add|add another) {b}?",
        "(And what is that|That) plus {b}?",
        "+ {b}?",
    ),
    "-": (
        "(and |And |Now |And now |)(minus|subtract|take away) {b}?",
        "(And what is that|That) minus {b}?",
        "- {b}?",
    ),
    "*": (
        "(and |And |Now |And now |)times {b}?",
        "(And what is that|That) times {b}?",
        "(Now m|M)ultiply (it|that) by {b}.",
    ),
}


def result(a: int, operator: str, b: int) -> int:
    return {"+": a + b, "-": a - b, "*": a * b}[operator]


def _exchange(prompt: str, a: int, operator: str, b: int) -> Exchange:
    facts = {"+": f"{min(a, b)}+{max(a, b)}", "-": f"{a}-{b}", "*": None}
    return Exchange(prompt, (f"{a} {operator} {b} = {result(a, operator, b)}.",), facts[operator])


def _operands(rng: Random, operator: str) -> tuple[int, int]:
    if operator == "*":
        return rng.randint(0, LARGEST_FACTOR), rng.randint(0, LARGEST_FACTOR)
    ceilings = (9, 20, LARGEST_OPERAND, LARGEST_OPERAND, LARGEST_OPERAND)
    a, b = rng.randint(0, rng.choice(ceilings)), rng.randint(0, rng.choice(ceilings))
    if operator == "-" and a < b and rng.random() < 0.7:
        return b, a
    return a, b


def question(rng: Random, operator: str) -> Exchange:
    a, b = _operands(rng, operator)
    in_words = a < len(_WORDS) and b < len(_WORDS) and rng.random() < 0.15
    if in_words:
        verb = {"+": "plus", "-": "minus", "*": "times"}[operator]
        prompt = say(rng, _ASK + f"{_WORDS[a]} {verb} {_WORDS[b]}?")
    else:
        prompt = say(rng, *_PROMPTS[operator]).format(a=a, b=b)
    return _exchange(prompt, a, operator, b)


def addition(rng: Random) -> Dialogue:
    return Dialogue("addition", (question(rng, "+"),))


def subtraction(rng: Random) -> Dialogue:
    return Dialogue("subtraction", (question(rng, "-"),))


def multiplication(rng: Random) -> Dialogue:
    return Dialogue("multiplication", (question(rng, "*"),))


def follow_up(rng: Random) -> Dialogue:
    """A sum, then one to three further steps from its result."""
    operator = rng.choice("++-")
    a, b = _operands(rng, operator)
    if operator == "-":
        a, b = max(a, b), min(a, b)
    exchanges = [_exchange(say(rng, *_PROMPTS[operator]).format(a=a, b=b), a, operator, b)]
    value = result(a, operator, b)
    for _ in range(rng.randint(1, 3)):
        if not 0 <= value <= LARGEST_OPERAND:
            break
        operator = rng.choice("++--*" if value <= LARGEST_FACTOR else "+-")
        ceiling = {"+": LARGEST_OPERAND, "-": value, "*": LARGEST_FACTOR}[operator]
        step = rng.randint(0, min(ceiling, rng.choice((10, 20, 99))))
        exchanges.append(
            _exchange(say(rng, *_NEXT[operator]).format(b=step), value, operator, step)
        )
        value = result(value, operator, step)
    if len(exchanges) == 1:
        return follow_up(rng)
    return Dialogue("follow-up arithmetic", tuple(exchanges))
