"""The words, names and longer texts that the corpus is filled with, read from texts/."""

from __future__ import annotations

from pathlib import Path

_TEXTS = Path(__file__).parent / "texts"


def _listed(name: str) -> tuple[str, ...]:
    return tuple((_TEXTS / f"{name}.txt").read_text().split())


def paragraphs(name: str) -> tuple[str, ...]:
    """The file's paragraphs, which blank lines divide, each as one line."""
    text = (_TEXTS / f"{name}.txt").read_text()
    return tuple(" ".join(paragraph.split()) for paragraph in text.split("\n\n"))


ANIMALS = _listed("animals")
CITIES = _listed("cities")
COLOURS = _listed("colours")
FOODS = _listed("foods")
NAMES = _listed("names")
WORDS = _listed("words")
