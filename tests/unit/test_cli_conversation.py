from __future__ import annotations

import pytest

from services.cli.chat.conversation import (
    Conversation,
    Order,
    Question,
    Said,
    Unknown,
    Verb,
    understand,
)


@pytest.mark.parametrize(
    ("line", "meaning"),
    [
        ("", None),
        ("   ", None),
        ("hello\n", Question("hello")),
        ("what is 1/2?", Question("what is 1/2?")),
        ("//etc/hosts", Question("/etc/hosts")),
        ("/reset", Order(Verb.RESET)),
        ("  /exit ", Order(Verb.EXIT)),
        ("/system  Be brief. ", Order(Verb.SYSTEM, "Be brief.")),
        ("/system", Order(Verb.SYSTEM, "")),
        ("/quit", Unknown("/quit")),
        ("/systematic", Unknown("/systematic")),
        ("/", Unknown("/")),
    ],
)
def test_what_a_line_means(line: str, meaning: object) -> None:
    assert understand(line) == meaning


def test_the_system_message_comes_first_and_survives_a_reset() -> None:
    conversation = Conversation(system="Be brief.")
    conversation.ask("Hello")
    conversation.answer("Hi.")
    assert conversation.messages() == [
        Said("system", "Be brief."),
        Said("user", "Hello"),
        Said("assistant", "Hi."),
    ]
    conversation.reset()
    assert conversation.messages() == [Said("system", "Be brief.")]


def test_without_a_system_message_there_is_none() -> None:
    conversation = Conversation()
    conversation.ask("Hello")
    assert conversation.messages() == [Said("user", "Hello")]


def test_a_question_can_be_taken_back() -> None:
    conversation = Conversation()
    conversation.ask("Hello")
    conversation.answer("Hi.")
    conversation.ask("And?")
    conversation.take_back()
    assert [each.text for each in conversation.messages()] == ["Hello", "Hi."]
