"""What may not come does not: bad words and constraints, alone and beside other rows."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from services.mesh.errors import InvalidRequestError, StartError, UnsupportedError
from services.worker.engines.bad_words import BadWords, bad_words
from services.worker.engines.base import FinishReason, OutputSoFar, Sampling
from services.worker.engines.constraints import Vocabulary, load_compiler
from services.worker.engines.detokenizer import ByteDetokenizer
from services.worker.engines.forms import Literal, Regex
from services.worker.engines.forms import OneOf as OneOfForms
from services.worker.engines.settings import EngineSettings
from services.worker.engines.transformers import TransformersEngine
from services.worker.engines.transformers.sampling.pending import Sampled
from services.worker.engines.transformers.sampling.sampler import Sampler
from services.worker.engines.transformers.scheduling.sequence import Request, Sequence
from services.worker.engines.transformers.text.output import Output
from tests.contract.engine_client import running
from tests.fakes.constraints import OneOf
from tests.models import checkpoint

VOCABULARY = 70


class TestBadWords:
    def test_the_last_token_of_a_word_is_forbidden_behind_the_others(self) -> None:
        words = BadWords([(5,), (1, 2, 3), (2, 9), (5,)])
        assert words.always == (5,)
        assert list(words.next_after([])) == []
        assert list(words.next_after([1])) == []
        assert sorted(words.next_after([8, 1, 2])) == [3, 9]
        assert list(words.next_after([7, 2])) == [9]

    @given(
        st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=4), min_size=1, max_size=4),
        st.lists(st.integers(0, 3), max_size=30),
    )
    def test_no_word_comes_whatever_is_drawn(
        self, sequences: list[list[int]], wishes: list[int]
    ) -> None:
        words = BadWords(sequences)
        output: list[int] = []
        for wish in wishes:
            if wish not in {*words.always, *words.next_after(output)}:
                output.append(wish)
        for sequence in sequences:
            ends = range(len(sequence), len(output) + 1)
            assert all(output[end - len(sequence) : end] != sequence for end in ends)

    def test_a_word_is_known_with_a_space_and_inside_a_text(self) -> None:
        # A tokenizer that puts a space where a text begins, as SentencePiece does.
        ids = {" bad": 1, "bad": 2, "\n": 3, " ": 4, "a": 5}

        def encode(text: str) -> list[int]:
            if not text.startswith(" "):
                text = " " + text
            found: list[int] = []
            while text:
                piece = next(each for each in ids if text.startswith(each))
                found.append(ids[piece])
                text = text[len(piece) :]
            return found

        words = bad_words(["bad"], encode)
        assert {1, 2} <= set(words.always)

    def test_a_word_without_tokens_is_refused(self) -> None:
        with pytest.raises(InvalidRequestError) as refused:
            bad_words(["a", "b"], lambda text: [1] if "b" not in text else [])
        assert refused.value.field == "sampling.bad_words[1]"


def row(constraint: OneOf | None, **fields: Any) -> Sequence:
    sampling = Sampling(temperature=0.0, **fields)
    request = Request("key", "id", (1,), "", sampling, None, 0, 0.0)
    text = ByteDetokenizer(lambda _: b"x")
    output = Output(text, sampling, 50, frozenset({0}), constraint=constraint)
    return Sequence(request, 0, output, None)


def sample(sampler: Sampler, rows: list[Sequence]) -> list[int]:
    outcomes = sampler.sample(rows, torch.arange(float(VOCABULARY)).repeat(len(rows), 1))
    return [each.token_id for each in outcomes if isinstance(each, Sampled)]


def engine_settings(**fields: Any) -> EngineSettings:
    return EngineSettings(str(checkpoint()), device="cpu", dtype="float32", threads=1, **fields)


class TestConstraints:
    def test_an_output_takes_the_form_and_its_neighbours_do_not(self) -> None:
        sampler = Sampler(VOCABULARY, torch.device("cpu"))
        rows = [row(None), row(OneOf([(31, 32), (31, 63, 2)], 0)), row(OneOf([(5, 6, 7)], 0))]
        drawn = []
        for _ in range(4):
            drawn.append(sample(sampler, rows))
            for each, token_id in zip(rows, drawn[-1], strict=True):
                each.output.take(token_id)
        assert [step[0] for step in drawn] == [69] * 4
        assert [step[1] for step in drawn] == [31, 63, 2, 0]
        assert [step[2] for step in drawn] == [5, 6, 7, 0]

    def test_a_form_is_rebuilt_from_the_output(self) -> None:
        constraint = OneOf([(31, 32), (31, 63, 2)], 0)
        constraint.rebuild((31, 63))
        sampler = Sampler(VOCABULARY, torch.device("cpu"))
        assert sample(sampler, [row(constraint)]) == [2]

    def test_a_form_that_leaves_nothing_is_the_requests_fault(self) -> None:
        sampler = Sampler(VOCABULARY, torch.device("cpu"))
        rows = [row(OneOf([], 0), min_tokens=9), row(None)]
        outcomes = sampler.sample(rows, torch.zeros(2, VOCABULARY))
        assert isinstance(outcomes[0], InvalidRequestError)
        assert isinstance(outcomes[1], Sampled)

    async def test_an_engine_with_a_compiler_keeps_to_the_form_also_after_a_cut(self) -> None:
        settings = engine_settings(constraint_compiler="tests.fakes.constraints:choices_compiler")
        async with running(TransformersEngine(settings)) as client:
            choices = ("Grüße aus München", "Numbers: 0 1 2")
            form = OneOfForms(tuple(map(Literal, choices)))
            whole = await client.run(constraint=form, seed=4)
            assert whole.text in choices
            assert whole.finished.reason is FinishReason.STOP
            beside = await client.run(seed=4, max_tokens=5)
            so_far = OutputSoFar(tuple(whole.token_ids[:3]), 4, 0)
            rest = await client.run(constraint=form, seed=4, own={"output_so_far": {0: so_far}})
            assert whole.token_ids[:3] + rest.token_ids == whole.token_ids
            assert rest.text == whole.text
            assert beside.text not in choices
            with pytest.raises(InvalidRequestError):
                await client.submit(constraint=Regex("a+"))

    async def test_an_engine_without_a_compiler_refuses(self) -> None:
        async with running(TransformersEngine(engine_settings(constraint_compiler=None))) as client:
            with pytest.raises(UnsupportedError) as refused:
                await client.submit(constraint=Regex("a+"))
            assert refused.value.field == "sampling.constraint"

    @pytest.mark.parametrize(
        ("name", "told"),
        [
            ("tests.fakes.constraints", "write module:function"),
            (":choices_compiler", "write module:function"),
            ("no_such_package.there:compiler", "Python package 'no_such_package'"),
            ("tests.fakes.constraints:no_such", "has no no_such"),
        ],
    )
    def test_a_compiler_that_is_not_there_stops_the_start(self, name: str, told: str) -> None:
        with pytest.raises(StartError, match="constraint_compiler") as stopped:
            load_compiler(name, Vocabulary([b"a"] * 8, frozenset(), frozenset({0})))
        assert told in str(stopped.value)
