"""Stop strings and detokenization, in pieces of any size."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.worker.engines.detokenizer import ByteDetokenizer, Detokenizer, WindowDetokenizer
from services.worker.engines.stop_strings import StopStrings
from services.worker.engines.transformers.text.token_texts import TokenTexts
from tests.models import checkpoint

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


def feed_all(stops: StopStrings, pieces: list[str]) -> tuple[str, str | None]:
    released = ""
    for piece in pieces:
        text, match = stops.feed(piece)
        released += text
        if match is not None:
            return released, match
    return released + stops.flush(), None


def pieces_of(text: str, cuts: list[int]) -> list[str]:
    at = [0, *sorted(cut % (len(text) + 1) for cut in cuts), len(text)]
    return [text[start:end] for start, end in pairwise(at)]


class TestStopStrings:
    def test_a_match_over_three_pieces_is_held_back_and_cut(self) -> None:
        stops = StopStrings(("<end>",))
        assert stops.feed("abc<e") == ("abc", None)
        assert stops.feed("n") == ("", None)
        assert stops.feed("d>tail") == ("", "<end>")

    def test_what_turns_out_harmless_is_released(self) -> None:
        stops = StopStrings(("<end>",))
        assert stops.feed("a<en") == ("a", None)
        assert stops.feed("ough") == ("<enough", None)

    def test_the_match_can_be_kept(self) -> None:
        stops = StopStrings(("\n\n",), include=True)
        assert stops.feed("a\n") == ("a", None)
        assert stops.feed("\nb") == ("\n\n", "\n\n")

    def test_the_first_to_be_complete_wins_then_the_longest(self) -> None:
        assert StopStrings(("abcd", "bc")).feed("xabcd") == ("xa", "bc")
        assert StopStrings(("c", "abc")).feed("xabc") == ("x", "abc")

    def test_a_match_that_may_not_end_yet_is_passed_over(self) -> None:
        stops = StopStrings(("ab",))
        assert stops.feed("xab", may_end=False) == ("xab", None)
        assert stops.feed("a", may_end=False) == ("", None)
        assert stops.feed("b") == ("", "ab")

    @given(
        st.text("ab", max_size=30),
        st.lists(st.text("ab", min_size=1, max_size=4), min_size=1, max_size=3),
        st.lists(st.integers(0, 100), max_size=10),
        st.booleans(),
    )
    def test_the_pieces_do_not_matter(
        self, text: str, strings: list[str], cuts: list[int], include: bool
    ) -> None:
        whole = feed_all(StopStrings(strings, include=include), list(text))
        assert feed_all(StopStrings(strings, include=include), pieces_of(text, cuts)) == whole
        released, match = whole
        if match is None:
            assert released == text
            assert not any(string in text for string in strings)
        else:
            assert text.startswith(released)
            assert any(string in released for string in strings) == include


@cache
def tokenizer(kind: str) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(
        checkpoint(tokenizer="byte_level" if kind == "window" else kind)
    )


def ids_of(kind: str, text: str) -> list[int]:
    ids: list[int] = tokenizer(kind)(text, add_special_tokens=False)["input_ids"]
    return ids


def detokenizer(kind: str, prompt_ids: Sequence[int] = ()) -> Detokenizer:
    """`kind` is a tokenizer, whose tokens are bytes, or "window" for the way of the others."""
    if kind == "window":
        return WindowDetokenizer(tokenizer("window").backend_tokenizer.decode, prompt_ids)
    texts = TokenTexts(tokenizer(kind))
    made = texts.detokenizer(prompt_ids, skip_special_tokens=True)
    assert isinstance(made, ByteDetokenizer)
    return made


def feed_each(detokenizer: Detokenizer, ids: Sequence[int]) -> tuple[str, str]:
    """What came token by token, and the rest."""
    return "".join(detokenizer.feed((token_id,)) for token_id in ids), detokenizer.flush()


TEXTS = st.text(st.sampled_from("ab é ß東京🙂🌊\n한 👩\u200d👩"), max_size=25)


KINDS = ("byte_level", "metaspace", "window")


class TestDetokenizer:
    @pytest.mark.parametrize("kind", KINDS)
    @settings(max_examples=150, deadline=None)
    @given(TEXTS)
    def test_no_piece_holds_half_a_character(self, kind: str, text: str) -> None:
        text_so_far, rest = feed_each(detokenizer(kind), ids_of(kind, "x" + text))
        assert text_so_far.lstrip() == "x" + text
        assert rest == ""

    @pytest.mark.parametrize("kind", KINDS)
    @settings(max_examples=100, deadline=None)
    @given(TEXTS, st.integers(0, 100))
    def test_the_output_continues_the_prompt_wherever_it_is_cut(
        self, kind: str, text: str, at: int
    ) -> None:
        ids = ids_of(kind, "x" + text)
        cut = 1 + at % len(ids)
        first = detokenizer(kind)
        before = "".join(first.feed((token_id,)) for token_id in ids[:cut])
        after, rest = feed_each(detokenizer(kind, ids[:cut]), ids[cut:])
        assert (before + after + rest).lstrip() == "x" + text

    @pytest.mark.parametrize("kind", ["byte_level", "window"])
    @settings(max_examples=200, deadline=None)
    @given(st.lists(st.integers(0, 399), max_size=80))
    def test_any_tokens_give_the_decoded_text(self, kind: str, ids: list[int]) -> None:
        assert "".join(feed_each(detokenizer(kind), ids)) == tokenizer(kind).decode(
            ids, skip_special_tokens=True
        )

    @pytest.mark.parametrize("kind", KINDS)
    def test_an_incomplete_character_is_flushed_as_a_replacement(self, kind: str) -> None:
        ids = ids_of(kind, "xÿ")
        assert feed_each(detokenizer(kind, ids[:1]), ids[1:-1])[1] == REPLACEMENT

    @pytest.mark.parametrize("kind", KINDS)
    def test_endless_invalid_bytes_are_not_held_forever(self, kind: str) -> None:
        byte = tokenizer(kind).convert_tokens_to_ids("<0xE4>" if kind == "metaspace" else "ä")
        text, rest = feed_each(detokenizer(kind, ids_of(kind, "x")), [byte] * 200)
        assert len(text) > 150
        assert set(text + rest) == {REPLACEMENT}

    def test_special_tokens_show_only_where_they_are_wanted(self) -> None:
        texts = TokenTexts(tokenizer("byte_level"))
        ids = [*ids_of("byte_level", "a"), tokenizer("byte_level").eos_token_id]
        assert feed_each(texts.detokenizer((), skip_special_tokens=True), ids)[0] == "a"
        assert feed_each(texts.detokenizer((), skip_special_tokens=False), ids)[0] == "a<|end|>"

    @pytest.mark.parametrize("kind", ["byte_level", "window"])
    def test_markers_show_though_other_special_tokens_do_not(
        self, kind: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        made = tokenizer("byte_level")
        texts = TokenTexts(made)
        if kind == "window":
            monkeypatch.setattr(texts, "tokens_are_bytes", False)
        marker, hidden = "<|user|>", "<|system|>"
        ids = made.convert_tokens_to_ids([hidden, marker, hidden, marker, made.eos_token])
        ids[2:2] = ids_of("byte_level", "é🙂")
        shown = frozenset({marker, "é", "no token"})
        text = texts.detokenizer((), skip_special_tokens=True, visible_markers=shown)
        assert "".join(feed_each(text, ids)) == "<|user|>é🙂<|user|>"
        all_shown = texts.detokenizer((), skip_special_tokens=False, visible_markers=shown)
        assert "".join(feed_each(all_shown, ids)) == made.decode(ids)

    @pytest.mark.parametrize("kind", ["byte_level", "metaspace"])
    def test_the_bytes_of_tokens_are_those_of_the_text(self, kind: str) -> None:
        texts = TokenTexts(tokenizer(kind))
        text = "Grüße, 東京 🙂"
        assert b"".join(map(texts.bytes_of, ids_of(kind, text))).decode().lstrip() == text
        assert texts.text_of(ids_of(kind, "x🙂")[-1]) == REPLACEMENT or kind == "metaspace"
