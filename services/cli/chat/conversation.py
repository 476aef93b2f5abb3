"""What is said in a chat, and what a line that was typed means. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Literal

Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True)
class Said:
    """One message."""

    role: Role
    text: str


@dataclass
class Conversation:
    """The messages so far. `system` comes before them all; empty is none."""

    system: str = ""
    turns: list[Said] = field(default_factory=list)

    def messages(self) -> list[Said]:
        """All that the model gets to see."""
        return [Said("system", self.system), *self.turns] if self.system else list(self.turns)

    def ask(self, text: str) -> None:
        """Adds what the user said."""
        self.turns.append(Said("user", text))

    def take_back(self) -> None:
        """Forgets a question that was not answered."""
        self.turns.pop()

    def answer(self, text: str) -> None:
        """Adds what the model said, also where it was interrupted."""
        self.turns.append(Said("assistant", text))

    def reset(self) -> None:
        """Starts anew, with the same system message."""
        self.turns.clear()


class Verb(Enum):
    """What a line that begins with a slash asks for."""

    HELP = "/help"
    RESET = "/reset"
    SYSTEM = "/system"
    EXIT = "/exit"


@dataclass(frozen=True)
class Order:
    """A line that speaks to the program."""

    verb: Verb
    argument: str = ""


@dataclass(frozen=True)
class Question:
    """A line that speaks to the model."""

    text: str


@dataclass(frozen=True)
class Unknown:
    """A line that begins with a slash and a word that is no order."""

    word: str


def understand(line: str) -> Order | Question | Unknown | None:
    """What a line means; None for a blank one.

    Two slashes at the start are one slash said to the model.
    """
    text = line.strip()
    if not text:
        return None
    if text.startswith("//"):
        return Question(text[1:])
    if not text.startswith("/"):
        return Question(text)
    word, _, argument = text.partition(" ")
    try:
        return Order(Verb(word), argument.strip())
    except ValueError:
        return Unknown(word)
