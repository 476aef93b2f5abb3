"""Cutting an output at any token and going on from there changes nothing, whatever is asked for."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from services.worker.chat_formats.names import by_name
from services.worker.engines.base import (
    Chunk,
    EngineRequest,
    Finished,
    OutputSoFar,
    SequenceEvent,
    Started,
    TokenLogprob,
)
from services.worker.engines.transformers import events
from services.worker.engines.transformers.admission import Admission
from services.worker.engines.transformers.sampling.pending import Sampled
from services.worker.engines.transformers.sampling.sampler import Sampler
from services.worker.engines.transformers.scheduling.sequence import Sequence
from services.worker.engines.transformers.text.prompts import PromptReader
from services.worker.engines.transformers.text.token_texts import TokenTexts
from tests.models import checkpoint


@dataclass
class Told:
    """What one choice has told, chunk by chunk."""

    chunks: list[Chunk] = field(default_factory=list)
    finished: Finished | None = None

    def take(self, event: SequenceEvent) -> None:
        if isinstance(event.event, Chunk):
            self.chunks.append(event.event)
        elif isinstance(event.event, Finished):
            self.finished = event.event

    @property
    def token_ids(self) -> list[int]:
        return [token_id for chunk in self.chunks for token_id in chunk.token_ids]

    @property
    def text(self) -> str:
        return "".join(chunk.text for chunk in self.chunks)

    @property
    def logprobs(self) -> list[TokenLogprob]:
        return [each for chunk in self.chunks for each in chunk.logprobs]

    def ending(self) -> tuple[Any, ...]:
        end = self.finished
        assert end is not None
        return end.reason, end.completion_tokens, end.stop_string, end.stop_token_id


@cache
def parts() -> tuple[Any, TokenTexts, PromptReader]:
    from transformers import AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(checkpoint())
    texts = TokenTexts(tokenizer)
    return (
        tokenizer,
        texts,
        PromptReader(
            tokenizer, texts, vocabulary_size=len(tokenizer), chat_format=by_name("generic")
        ),
    )


def logits_after(sequence: Sequence) -> torch.Tensor:
    """A model: what comes next depends on the last two tokens only, and varies between them."""
    tokenizer = parts()[0]
    last = sequence.token_ids(max(0, sequence.total_tokens - 2), sequence.total_tokens)
    noise = torch.Generator().manual_seed(hash(tuple(last)) % 2**31)
    return torch.randn(len(tokenizer), generator=noise) * 3


def run(
    prompt: str, fields: Mapping[str, Any], so_far: Mapping[int, OutputSoFar]
) -> dict[int, Told]:
    """All that the choices tell, computed together."""
    tokenizer, texts, prompts = parts()
    admission = Admission(
        prompts,
        texts,
        sampling_defaults={},
        end_ids=frozenset({tokenizer.eos_token_id}),
        vocabulary_size=len(tokenizer),
        context_length_tokens=200,
    )
    request = EngineRequest("key", "id", "model", prompt, fields, output_so_far=so_far)
    running = admission.sequences(request, time.monotonic())
    sampler = Sampler(len(tokenizer), torch.device("cpu"))
    told = {each.choice_index: Told() for each in running}
    for each in running:
        for event in events.started(each, texts):
            told[each.choice_index].take(event)
            assert isinstance(event.event, Started)
        if each.ending is not None:
            for event in events.finished(each, each.ending, 0.0):
                told[each.choice_index].take(event)
    while running := [each for each in running if each.ending is None]:
        outcomes = sampler.sample(running, torch.stack([logits_after(each) for each in running]))
        for each, outcome in zip(running, outcomes, strict=True):
            assert isinstance(outcome, Sampled), outcome
            ending = events.add(each, outcome, 0.0)
            for event in events.sampled(each, outcome, ending, texts, 0.0):
                told[each.choice_index].take(event)
    return told


def prefix_of(told: Told, chunks: int) -> OutputSoFar:
    """What a gateway knows that has delivered so many chunks."""
    delivered = told.chunks[:chunks]
    token_ids = tuple(token_id for chunk in delivered for token_id in chunk.token_ids)
    text = "".join(chunk.text for chunk in delivered)
    return OutputSoFar(token_ids, 1 + len(delivered), len(text.encode()))


FIELDS = st.fixed_dictionaries(
    {
        "seed": st.integers(0, 2**64 - 1),
        "choices": st.integers(1, 3),
        "max_tokens": st.integers(1, 24),
        "temperature": st.sampled_from([0.0, 0.7, 1.5]),
    },
    optional={
        "top_k": st.sampled_from([-1, 5, 100]),
        "top_p": st.sampled_from([0.5, 0.95, 1.0]),
        "min_p": st.sampled_from([0.0, 0.05]),
        "repetition_penalty": st.sampled_from([0.8, 1.3]),
        "presence_penalty": st.sampled_from([-1.0, 1.0]),
        "frequency_penalty": st.sampled_from([-0.5, 0.9]),
        "logit_bias": st.dictionaries(st.integers(0, 399), st.floats(-5, 20), max_size=3),
        "bad_words": st.lists(st.sampled_from(["a", "ei", "東", "The", "é"]), max_size=3),
        "stop": st.lists(st.text("aeinr\ufffdé ", min_size=1, max_size=3), max_size=3),
        "stop_token_ids": st.lists(st.integers(0, 399), max_size=20),
        "include_stop_string": st.booleans(),
        "ignore_eos": st.booleans(),
        "skip_special_tokens": st.booleans(),
        "top_logprobs": st.sampled_from([0, 3]),
        "stream_interval_tokens": st.sampled_from([1, 3]),
    },
)


class TestCuts:
    @settings(max_examples=100, deadline=None)
    @given(
        st.sampled_from(["The quick", "Grüße 東", "🙂", "a a a"]),
        FIELDS,
        st.booleans(),
        st.lists(st.integers(0, 30), min_size=3, max_size=3),
    )
    def test_a_cut_anywhere_changes_nothing(
        self, prompt: str, fields: dict[str, Any], has_minimum: bool, cuts: list[int]
    ) -> None:
        if has_minimum:
            fields["min_tokens"] = fields["max_tokens"] // 2
        whole = run(prompt, fields, {})
        so_far = {
            index: prefix_of(told, min(cuts[index], len(told.chunks)))
            for index, told in whole.items()
        }
        rest = run(prompt, fields, so_far)
        for index, told in whole.items():
            kept = len(so_far[index].token_ids)
            before = told.text.encode()[: so_far[index].delivered_bytes].decode()
            assert list(so_far[index].token_ids) + rest[index].token_ids == told.token_ids
            assert before + rest[index].text == told.text
            assert rest[index].ending() == told.ending()
            if "top_logprobs" in fields:
                assert len(told.logprobs) == len(told.token_ids)
                assert rest[index].logprobs == told.logprobs[kept:]

    @settings(max_examples=40, deadline=None)
    @given(FIELDS)
    def test_a_choice_is_the_same_without_the_others(self, fields: dict[str, Any]) -> None:
        together = run("The quick", fields | {"choices": 3}, {})
        alone = run("The quick", fields | {"choices": 1}, {})
        assert alone[0].token_ids == together[0].token_ids
        assert alone[0].text == together[0].text
        assert alone[0].logprobs == together[0].logprobs
