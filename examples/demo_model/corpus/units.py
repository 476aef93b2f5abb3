"""Converting units of length, mass, volume and time."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from corpus.dialogue import Dialogue, Exchange
from corpus.wording import say


@dataclass(frozen=True, slots=True)
class Conversion:
    large: str
    small: str
    factor: int
    largest_amount: int
    large_names: tuple[str, ...]
    small_names: tuple[str, ...]

    @property
    def is_power_of_ten(self) -> bool:
        return self.factor in (10, 100, 1000)


def _conversion(large: str, small: str, factor: int, largest_amount: int) -> Conversion:
    large_names, small_names = large.split("|"), small.split("|")
    return Conversion(
        large_names[0],
        small_names[0],
        factor,
        largest_amount,
        tuple(large_names),
        tuple(small_names),
    )


CONVERSIONS = (
    _conversion("m|metres|meters", "cm|centimetres|centimeters", 100, 50),
    _conversion("m|metres|meters", "mm|millimetres|millimeters", 1000, 50),
    _conversion("km|kilometres|kilometers", "m|metres|meters", 1000, 50),
    _conversion("cm|centimetres|centimeters", "mm|millimetres|millimeters", 10, 50),
    _conversion("kg|kilograms|kilos", "g|grams", 1000, 50),
    _conversion("tonnes|tons", "kg|kilograms|kilos", 1000, 50),
    _conversion("litres|liters|l", "ml|millilitres|milliliters", 1000, 50),
    _conversion("hours|h", "minutes|min", 60, 10),
    _conversion("minutes|min", "seconds|s", 60, 10),
    _conversion("days", "hours|h", 24, 10),
    _conversion("weeks", "days", 7, 10),
    _conversion("years", "months", 12, 10),
    _conversion("years", "weeks", 52, 2),
    _conversion("dozens|dozen", "pieces", 12, 10),
)


def _singular(unit: str, amount: int) -> str:
    return unit[:-1] if amount == 1 and len(unit) > 2 and unit.endswith("s") else unit


def _measure(amount: int, unit: str) -> str:
    return f"{amount} {_singular(unit, amount)}"


def units(rng: Random) -> Dialogue:
    conversion = rng.choice(CONVERSIONS)
    amount = rng.randint(
        1, rng.choice((min(12, conversion.largest_amount), conversion.largest_amount))
    )
    from_amount, from_unit, from_names = amount, conversion.large, conversion.large_names
    to_amount, to_unit, to_names = (
        amount * conversion.factor,
        conversion.small,
        conversion.small_names,
    )
    if conversion.is_power_of_ten and rng.random() < 0.25:
        from_amount, to_amount = to_amount, from_amount
        from_unit, to_unit = to_unit, from_unit
        from_names, to_names = to_names, from_names
    source, target = _measure(from_amount, rng.choice(from_names)), rng.choice(to_names)
    prompt = (
        say(
            rng,
            "How many {to} (are in|are|in|are there in|make|is) {from}?",
            "(Convert|Please convert|Change) {from} (to|into) {to}.",
            "(What is|How much is|) {from} in {to}?",
            "(Express|Give me) {from} in {to}.",
        )
        .format_map({"from": source, "to": target})
        .lstrip()
    )
    fact = f"{from_amount} {from_unit} {to_unit}" if conversion.is_power_of_ten else None
    reply = f"{_measure(from_amount, from_unit)} = {_measure(to_amount, to_unit)}."
    return Dialogue("units", (Exchange(prompt, (reply,), fact),))
