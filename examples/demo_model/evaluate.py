"""Asks a checkpoint every held-out question and counts the right answers."""

from __future__ import annotations

import argparse
import hashlib
import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from corpus.dialogue import Dialogue
from corpus.mix import held_out_dialogues
from machine import describe_machine, describe_software
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedTokenizerBase,
)

BATCH_DIALOGUES = 64
SPARE_TOKENS = 8


@dataclass(frozen=True, slots=True)
class Run:
    """One way to ask: temperature 0 is greedy decoding."""

    dtype: str
    temperature: float


RUNS = (Run("float32", 0.0), Run("bfloat16", 0.0), Run("float32", 0.7), Run("float32", 1.0))


@dataclass(frozen=True, slots=True)
class Outcome:
    dialogue: Dialogue
    replies: tuple[str, ...]

    @property
    def is_right(self) -> bool:
        """Every reply, word for word, is one of those that the corpus counts as right."""
        exchanges = self.dialogue.exchanges
        return all(
            reply in exchange.replies
            for exchange, reply in zip(exchanges, self.replies, strict=True)
        )


class Asker:
    """Holds conversations with a checkpoint, many at a time, feeding it its own earlier replies."""

    def __init__(self, checkpoint: Path, run: Run) -> None:
        self._tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            checkpoint, padding_side="left"
        )
        self._model: Any = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=run.dtype)
        self._temperature = run.temperature

    @property
    def parameters(self) -> int:
        return int(self._model.num_parameters())

    def outcomes(self, dialogues: Sequence[Dialogue]) -> list[Outcome]:
        by_length = sorted(
            dialogues, key=lambda d: (len(d.exchanges), max(len(e.replies[0]) for e in d.exchanges))
        )
        return [
            outcome
            for start in range(0, len(by_length), BATCH_DIALOGUES)
            for outcome in self._converse(by_length[start : start + BATCH_DIALOGUES])
        ]

    def _converse(self, dialogues: Sequence[Dialogue]) -> list[Outcome]:
        replies: list[tuple[str, ...]] = [() for _ in dialogues]
        for turn in range(max(len(d.exchanges) for d in dialogues)):
            asked = [index for index, d in enumerate(dialogues) if turn < len(d.exchanges)]
            prompts = [self._prompt(dialogues[index], replies[index]) for index in asked]
            right = [reply for index in asked for reply in dialogues[index].exchanges[turn].replies]
            for index, reply in zip(
                asked, self._generate(prompts, self._longest(right)), strict=True
            ):
                replies[index] += (reply,)
        return [Outcome(d, r) for d, r in zip(dialogues, replies, strict=True)]

    def _longest(self, replies: Sequence[str]) -> int:
        return max(len(ids) for ids in self._tokenizer(list(replies))["input_ids"]) + SPARE_TOKENS

    def _prompt(self, dialogue: Dialogue, replies: tuple[str, ...]) -> str:
        prompts = [exchange.prompt for exchange in dialogue.exchanges[: len(replies) + 1]]
        if dialogue.raw:
            return prompts[0]
        messages = [{"role": "system", "content": dialogue.system}] if dialogue.system else []
        for index, prompt in enumerate(prompts):
            messages.append({"role": "user", "content": prompt})
            messages += [
                {"role": "assistant", "content": reply} for reply in replies[index : index + 1]
            ]
        return str(
            self._tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=True
            )
        )

    def _generate(self, prompts: Sequence[str], max_new_tokens: int) -> list[str]:
        inputs = self._tokenizer(list(prompts), return_tensors="pt", padding=True)
        how = (
            {"do_sample": True, "temperature": self._temperature, "top_k": 0}
            if self._temperature
            else {"do_sample": False}
        )
        with torch.inference_mode():
            output = self._model.generate(**inputs, **how, max_new_tokens=max_new_tokens)
        new_tokens = output[:, inputs["input_ids"].shape[1] :]
        return list(self._tokenizer.batch_decode(new_tokens, skip_special_tokens=True))


def counts(outcomes: Sequence[Outcome]) -> dict[str, dict[str, int]]:
    table: dict[str, dict[str, int]] = defaultdict(lambda: {"right": 0, "asked": 0})
    for outcome in outcomes:
        row = table[outcome.dialogue.category]
        row["asked"] += 1
        row["right"] += outcome.is_right
    return dict(table)


def print_table(run: Run, table: dict[str, dict[str, int]]) -> None:
    how = f"temperature {run.temperature}" if run.temperature else "greedy"
    print(f"\n{run.dtype}, {how}")
    total = {key: sum(row[key] for row in table.values()) for key in ("right", "asked")}
    for category, row in [*table.items(), ("overall", total)]:
        share = row["right"] / row["asked"]
        print(f"  {category:<22}{row['right']:5d} of {row['asked']:5d}  {share:7.1%}")


def print_mistakes(outcomes: Sequence[Outcome], most: int) -> None:
    for outcome in [o for o in outcomes if not o.is_right][:most]:
        print(f"\n  [{outcome.dialogue.category}] system: {outcome.dialogue.system}")
        for exchange, reply in zip(outcome.dialogue.exchanges, outcome.replies, strict=True):
            print(
                f"    user: {exchange.prompt}\n    model: {reply}\n    right: {exchange.replies[0]}"
            )


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Count how many held-out questions a checkpoint answers rightly, by category.",
        epilog="example: python evaluate.py --checkpoint model, which writes model/evaluation.json",
    )
    parser.add_argument(
        "--checkpoint", type=Path, required=True, help="the folder that train.py wrote"
    )
    parser.add_argument(
        "--per-category",
        type=int,
        default=200,
        help="questions in a category, at most (default: 200)",
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=0,
        help="seeds the choice of questions and the sampling (default: 0)",
    )
    parser.add_argument("--threads", type=int, default=2, help="CPU threads to use (default: 2)")
    parser.add_argument(
        "--mistakes", type=int, default=0, help="wrong answers to print for each run (default: 0)"
    )
    parser.add_argument(
        "--greedy-only", action="store_true", help="one run, and write no evaluation.json"
    )
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    torch.set_num_threads(arguments.threads)
    dialogues = held_out_dialogues(arguments.seed, arguments.per_category)
    results = []
    parameters = 0
    for run in RUNS[:1] if arguments.greedy_only else RUNS:
        torch.manual_seed(arguments.seed)
        asker = Asker(arguments.checkpoint, run)
        parameters = asker.parameters
        outcomes = asker.outcomes(dialogues)
        table = counts(outcomes)
        print_table(run, table)
        print_mistakes(outcomes, arguments.mistakes)
        results.append({"dtype": run.dtype, "temperature": run.temperature, "categories": table})
    if arguments.greedy_only:
        return
    facts = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": describe_machine(),
        "software": describe_software(),
        "seed": arguments.seed,
        "parameters": parameters,
        "weights_sha256": hashlib.sha256(
            (arguments.checkpoint / "model.safetensors").read_bytes()
        ).hexdigest(),
        "runs": results,
    }
    (arguments.checkpoint / "evaluation.json").write_text(json.dumps(facts, indent=2) + "\n")


if __name__ == "__main__":
    main()
