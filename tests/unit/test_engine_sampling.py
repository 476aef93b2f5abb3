"""Sampling: how requests are resolved, where random numbers come from, what is drawn."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch

from services.mesh.errors import InternalError, InvalidRequestError
from services.worker.engines.base import Sampling
from services.worker.engines.detokenizer import ByteDetokenizer
from services.worker.engines.randomness import uniform
from services.worker.engines.sampling import resolve_sampling
from services.worker.engines.transformers.sampling.pending import Sampled
from services.worker.engines.transformers.sampling.sampler import Sampler
from services.worker.engines.transformers.scheduling.sequence import Request, Sequence
from services.worker.engines.transformers.text.output import Output

VOCABULARY = 50
LARGE_VOCABULARY = 6007
"""More than the candidates that are looked at first, and no whole number of blocks."""
WRITTEN = [0.13870930671691895, 0.6935120820999146, 0.26913022994995117, 0.18436658382415771]


def resolve(fields: dict[str, Any], **defaults: Any) -> Sampling:
    return resolve_sampling(fields, defaults, vocabulary_size=VOCABULARY)


class TestResolving:
    def test_fields_of_the_client_win_over_the_models_and_those_over_the_defaults(self) -> None:
        sampling = resolve({"top_p": 0.5}, top_p=0.9, temperature=0.6)
        assert (sampling.top_p, sampling.temperature, sampling.min_p) == (0.5, 0.6, 0.0)

    def test_a_field_that_is_none_is_silent(self) -> None:
        assert resolve({"temperature": None}, temperature=0.6).temperature == 0.6

    def test_top_k_of_minus_one_keeps_all(self) -> None:
        assert resolve({"top_k": -1}, top_k=20).top_k == 0

    def test_best_of_may_say_what_choices_say(self) -> None:
        assert resolve({"best_of": 2, "choices": 2}).choices == 2

    @pytest.mark.parametrize(
        ("fields", "greedy"),
        [
            ({"temperature": 0.0}, True),
            ({"temperature": 0.000009}, True),
            ({"temperature": 0.00002}, False),
            ({"top_p": 1e-9}, True),
            ({"top_p": 0.01}, False),
        ],
    )
    def test_greedy(self, fields: dict[str, Any], greedy: bool) -> None:
        assert resolve(fields).greedy is greedy

    def test_min_tokens_may_not_be_over_max_tokens(self) -> None:
        with pytest.raises(InvalidRequestError) as refused:
            resolve({"min_tokens": 3, "max_tokens": 2})
        assert refused.value.field == "sampling.min_tokens"

    def test_too_many_stop_strings(self) -> None:
        with pytest.raises(InvalidRequestError, match="at most 64"):
            resolve({"stop": [str(number) for number in range(65)]})


class TestRandomness:
    def test_it_is_a_function_of_all_three_and_stays_so(self) -> None:
        # Written down, so that a stream can move between workers of different releases.
        assert [uniform(0, 0, 0), uniform(1, 0, 0), uniform(0, 1, 0), uniform(0, 0, 1)] == WRITTEN

    def test_it_is_uniform(self) -> None:
        tenths = Counter(int(uniform(3, 1, position) * 10) for position in range(20_000))
        assert set(tenths) == set(range(10))
        assert all(1800 < count < 2200 for count in tenths.values())

    def test_seeds_of_64_bits_differ(self) -> None:
        assert len({uniform(seed, 0, 0) for seed in (0, 2**32, 2**63, 2**64 - 1)}) == 4


def sequence(
    slot: int,
    prompt_ids: tuple[int, ...] = (1,),
    output_ids: tuple[int, ...] = (),
    choice_index: int = 0,
    **fields: Any,
) -> Sequence:
    sampling = resolve_sampling(fields, {}, vocabulary_size=LARGE_VOCABULARY)
    request = Request(slot, "test", prompt_ids, "", sampling, None, 0, 0.0)
    output = Output(ByteDetokenizer(lambda _: b"x"), sampling, 1000, frozenset({2}))
    for token_id in output_ids:
        output.take(token_id)
    made = Sequence(request, choice_index, output, None)
    made.slot = slot
    return made


def sampler(vocabulary: int = VOCABULARY) -> Sampler:
    return Sampler(vocabulary, torch.device("cpu"))


def sample(one: Sampler, rows: list[Sequence], logits: torch.Tensor) -> list[Sampled]:
    outcomes = one.sample(rows, logits)
    sampled = [each for each in outcomes if isinstance(each, Sampled)]
    assert len(sampled) == len(outcomes), outcomes
    return sampled


def draws(logits: torch.Tensor, count: int = 256, **fields: Any) -> Counter[int]:
    """Tokens drawn from one distribution by sequences of different seeds."""
    rows = [sequence(slot, seed=slot, **fields) for slot in range(count)]
    sampled = sample(sampler(len(logits)), rows, logits.repeat(count, 1))
    return Counter(each.token_id for each in sampled)


def ramp(vocabulary: int = VOCABULARY) -> torch.Tensor:
    """Token 0 is the likeliest; each next is less likely by a tenth of a nat."""
    return -0.1 * torch.arange(vocabulary, dtype=torch.float32)


class TestSampler:
    def test_frequencies_follow_the_probabilities(self) -> None:
        rows = [sequence(0, seed=seed, temperature=0.5) for seed in range(8000)]
        logits = torch.tensor([1.0, 0.0, 0.5, -1.0])
        sampled = sample(sampler(4), rows, logits.repeat(len(rows), 1))
        counts = Counter(each.token_id for each in sampled)
        expected = torch.softmax(logits / 0.5, -1).tolist()
        for token_id, probability in enumerate(expected):
            assert counts[token_id] / len(rows) == pytest.approx(probability, abs=0.02)

    def test_top_k_keeps_the_likeliest(self) -> None:
        assert set(draws(ramp(), top_k=3)) == {0, 1, 2}

    def test_top_p_keeps_the_fewest_that_reach_it(self) -> None:
        logits = torch.tensor([0.5, 0.3, 0.15, 0.05]).log()
        assert set(draws(logits, top_p=0.7)) == {0, 1}
        assert set(draws(logits, top_p=0.81)) == {0, 1, 2}

    def test_top_p_counts_within_top_k(self) -> None:
        logits = torch.tensor([0.4, 0.3, 0.2, 0.1]).log()
        # 0.4 of 0.7 is 0.57: under 0.6, so both of the two stay; 0.5 is reached by the first.
        assert set(draws(logits, top_k=2, top_p=0.6)) == {0, 1}
        assert set(draws(logits, top_k=2, top_p=0.5)) == {0}

    def test_min_p_drops_what_is_far_less_likely_than_the_best(self) -> None:
        logits = torch.tensor([0.5, 0.3, 0.15, 0.05]).log()
        assert set(draws(logits, min_p=0.25)) == {0, 1, 2}

    @pytest.mark.parametrize(
        "fields",
        [{"top_p": 0.99}, {"top_k": 2000}, {"min_p": 0.0001}, {"top_k": 1500, "top_p": 0.9}],
    )
    def test_filters_that_keep_more_than_the_candidates_see_all(
        self, fields: dict[str, Any]
    ) -> None:
        logits = -0.0005 * torch.arange(LARGE_VOCABULARY, dtype=torch.float32)
        counts = draws(logits, **fields)
        assert max(counts) > 600
        assert max(counts) < fields.get("top_k", LARGE_VOCABULARY)

    def test_a_row_gets_the_same_whatever_is_beside_it(self) -> None:
        torch.manual_seed(0)
        logits = torch.randn(8, LARGE_VOCABULARY) * 3
        rows = [
            sequence(0, seed=1, top_p=0.9),
            sequence(1, seed=2, top_k=1000),
            sequence(2, seed=3),
            sequence(3, seed=4, temperature=0.0),
            sequence(4, seed=5, min_p=0.1, top_k=5),
            sequence(5, seed=6, repetition_penalty=1.5, output_ids=(3, 4, 4)),
            sequence(6, seed=7, top_p=0.999, temperature=2.0, top_logprobs=3),
            sequence(7, seed=8, logit_bias={5: 3.0}, min_tokens=4, top_logprobs=0),
        ]
        together = sample(sampler(LARGE_VOCABULARY), rows, logits.clone())
        for number, row in enumerate(rows):
            (alone,) = sample(sampler(LARGE_VOCABULARY), [row], logits[number : number + 1].clone())
            assert alone == together[number]

    def test_equally_likely_tokens_are_ordered_by_id(self) -> None:
        logits = torch.zeros(LARGE_VOCABULARY)
        for seed in range(20):
            (one,) = sample(
                sampler(LARGE_VOCABULARY),
                [sequence(0, seed=seed, top_k=LARGE_VOCABULARY)],
                logits[None].clone(),
            )
            assert one.token_id == int(uniform(seed, 0, 0) * LARGE_VOCABULARY)

    def test_position_and_choice_change_the_draw(self) -> None:
        rows = [
            sequence(0, seed=1),
            sequence(1, seed=1, output_ids=(5,)),
            sequence(2, seed=1, choice_index=1),
        ]
        logits = torch.zeros(3, LARGE_VOCABULARY)
        drawn = [each.token_id for each in sample(sampler(LARGE_VOCABULARY), rows, logits)]
        assert len(set(drawn)) == 3

    def test_logit_bias_decides(self) -> None:
        rows = [sequence(0, temperature=0.0, logit_bias={7: 100.0}), sequence(1, temperature=0.0)]
        sampled = sample(sampler(), rows, ramp().repeat(2, 1))
        assert [each.token_id for each in sampled] == [7, 0]

    def test_the_end_is_impossible_before_min_tokens(self) -> None:
        fields: dict[str, Any] = {"temperature": 0.0, "min_tokens": 2, "stop_token_ids": (3,)}
        likely = torch.zeros(3, VOCABULARY)
        likely[:, 2] = 9.0
        likely[:, 3] = 8.0
        likely[:, 4] = 7.0
        rows = [
            sequence(0, **fields),
            sequence(1, output_ids=(9,), **fields),
            sequence(2, output_ids=(9, 9), **fields),
        ]
        assert [each.token_id for each in sample(sampler(), rows, likely)] == [4, 2, 2]

    def test_penalties_are_those_of_the_prompt_and_the_output(self) -> None:
        prompt_ids, output_ids = (5, 6), (6, 7, 7)
        fields: dict[str, Any] = {
            "repetition_penalty": 2.0,
            "presence_penalty": 0.25,
            "frequency_penalty": 0.5,
            "temperature": 0.0,
        }
        logits = torch.full((1, VOCABULARY), -5.0)
        logits[0, 5:9] = torch.tensor([4.0, 4.0, 4.0, -1.0])
        row = sequence(0, prompt_ids, output_ids, **fields)
        sample(sampler(), [row], logits)
        # 5: the prompt's; 6: both; 7: twice in the output; 8: nowhere.
        assert logits[0, 5:9].tolist() == pytest.approx([2.0, 1.25, 0.75, -1.0])

    def test_penalties_follow_a_sequence_and_a_new_one_in_its_slot(self) -> None:
        fields: dict[str, Any] = {"frequency_penalty": 1.0, "temperature": 0.0}
        one = sampler()
        row = sequence(0, **fields)
        for _ in range(4):
            (drawn,) = sample(one, [row], ramp()[None].clone())
            row.output.take(drawn.token_id)
        # Each token is worth a penalty of ten ranks, so the next takes its place.
        assert row.output.token_ids == [0, 1, 2, 3]
        (fresh,) = sample(one, [sequence(0, **fields)], ramp()[None].clone())
        assert fresh.token_id == 0

    @pytest.mark.parametrize("spoilt", [float("nan"), float("inf")])
    @pytest.mark.parametrize("temperature", [0.0, 1.0])
    def test_a_row_that_is_no_number_fails_alone(self, spoilt: float, temperature: float) -> None:
        torch.manual_seed(1)
        logits = torch.randn(4, LARGE_VOCABULARY)
        fields: list[dict[str, Any]] = [{}, {"top_p": 0.9}, {"top_p": 0.5}, {"top_logprobs": 2}]
        rows = [
            sequence(slot, seed=slot, temperature=temperature, **each)
            for slot, each in enumerate(fields)
        ]
        sound = sampler(LARGE_VOCABULARY).sample(rows, logits.clone())
        logits[1, 33] = spoilt
        sampled = sampler(LARGE_VOCABULARY).sample(rows, logits)
        assert isinstance(sampled[1], InternalError)
        assert "no finite numbers" in str(sampled[1])
        assert [sampled[row] for row in (0, 2, 3)] == [sound[row] for row in (0, 2, 3)]

    def test_a_row_without_any_number_fails(self) -> None:
        (outcome,) = sampler().sample([sequence(0)], torch.full((1, VOCABULARY), -float("inf")))
        assert isinstance(outcome, InternalError)
