"""Trains the demo model from nothing on the corpus of this folder."""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

import torch
from architecture import build_model
from batches import NOT_LEARNT, Batch, Batcher
from corpus.mix import Conversation, training_conversations
from machine import describe_machine, describe_software
from tokenizer import save_tokenizer, train_tokenizer
from torch.nn import functional
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

VOCABULARY_SIZE = 1280
TOKENIZER_CONVERSATIONS = 30_000
PEAK_LEARNING_RATE = 3e-3
WARMUP_SHARE = 0.02
SECONDS_BETWEEN_REPORTS = 15.0


def build_optimizers(model: LlamaForCausalLM) -> list[torch.optim.Optimizer]:
    """Muon (Jordan et al., 2024) for the layers' matrices, AdamW for embeddings and norms."""
    layers = list(model.model.layers.parameters())
    matrices = [parameter for parameter in layers if parameter.ndim == 2]
    inside = {id(parameter) for parameter in matrices}
    others = [parameter for parameter in model.parameters() if id(parameter) not in inside]
    return [
        torch.optim.Muon(
            matrices, lr=PEAK_LEARNING_RATE, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"
        ),
        torch.optim.AdamW(others, lr=PEAK_LEARNING_RATE, betas=(0.9, 0.98), weight_decay=0.0),
    ]


def learning_rate(progress: float) -> float:
    """Linear warmup, then a cosine down to nothing; `progress` runs from 0 to 1."""
    warmup = min(1.0, progress / WARMUP_SHARE)
    return PEAK_LEARNING_RATE * warmup * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def loss_of(model: LlamaForCausalLM, batch: Batch) -> torch.Tensor:
    """Mean cross-entropy over the learnt tokens."""
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(input_ids=batch.token_ids, use_cache=False).logits
    return functional.cross_entropy(
        logits.float().flatten(0, 1), batch.targets.flatten(), ignore_index=NOT_LEARNT
    )


def step(
    model: LlamaForCausalLM,
    batch: Batch,
    optimizers: list[torch.optim.Optimizer],
    rate: float,
) -> float:
    """One update of the weights; returns the loss before it."""
    loss = loss_of(model, batch)
    loss.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()
        optimizer.zero_grad()
    return loss.item()


@dataclass(slots=True)
class Progress:
    """What has gone into the model; tokens include the padding."""

    steps: int = 0
    tokens: int = 0
    minutes: float = 0.0
    seeds: list[int] = field(default_factory=list)
    loss: float = math.nan


@dataclass(frozen=True, slots=True)
class Budget:
    """When to end: after some minutes, or after some steps if those come first."""

    minutes: float
    steps: int | None

    def share_spent(self, elapsed_s: float, steps: int) -> float:
        of_time = elapsed_s / (self.minutes * 60)
        return max(of_time, steps / self.steps) if self.steps else of_time


def train(
    model: LlamaForCausalLM, batches: Iterator[Batch], budget: Budget, done: Progress
) -> None:
    """Train until the budget is spent; the learning rate falls to zero with what is left of it."""
    optimizers = build_optimizers(model)
    losses: list[float] = []
    started_s = reported_s = time.monotonic()
    model.train()
    for steps, batch in enumerate(batches):
        share = budget.share_spent(time.monotonic() - started_s, steps)
        if share >= 1:
            break
        losses.append(step(model, batch, optimizers, learning_rate(share)))
        done.steps += 1
        done.tokens += batch.token_ids.numel()
        if time.monotonic() - reported_s > SECONDS_BETWEEN_REPORTS:
            reported_s = time.monotonic()
            done.loss = sum(losses) / len(losses)
            losses.clear()
            print(
                f"{share:4.0%}  step {done.steps:5d}  {done.tokens / 1e6:5.2f} M tokens"
                f"  loss {done.loss:.4f}",
                flush=True,
            )
    done.minutes += round((time.monotonic() - started_s) / 60, 1)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Train the demo model from nothing. It needs neither network nor GPU.",
        epilog="example: python train.py --output model, then evaluate.py and card.py on model",
    )
    parser.add_argument(
        "--output", type=Path, required=True, help="the folder to write the checkpoint to"
    )
    parser.add_argument(
        "--minutes", type=float, default=60.0, help="how long to train at most (default: 60)"
    )
    parser.add_argument(
        "--steps",
        type=int,
        help="end after so many steps if they take less than --minutes",
    )
    parser.add_argument(
        "--continue-from",
        type=Path,
        metavar="CHECKPOINT",
        help="train this checkpoint further, with another seed, instead of a new one",
    )
    parser.add_argument("--seed", type=int, default=0, help="seeds corpus and weights (default: 0)")
    parser.add_argument(
        "--batch-tokens", type=int, default=4096, help="tokens in a batch (default: 4096)"
    )
    parser.add_argument("--threads", type=int, default=2, help="CPU threads to use (default: 2)")
    return parser.parse_args()


def start(
    arguments: argparse.Namespace, conversations: Iterator[Conversation]
) -> tuple[PreTrainedTokenizerFast, LlamaForCausalLM, Progress]:
    """A new tokenizer and model, or those of the checkpoint to continue from."""
    earlier: Path | None = arguments.continue_from
    if earlier is None:
        sample = islice(conversations, TOKENIZER_CONVERSATIONS)
        tokenizer = train_tokenizer(sample, VOCABULARY_SIZE)
        return tokenizer, build_model(tokenizer), Progress()
    tokenizer = PreTrainedTokenizerFast.from_pretrained(earlier)
    model = LlamaForCausalLM.from_pretrained(earlier, dtype="float32")
    facts = json.loads((earlier / "training.json").read_text())
    done = Progress(facts["steps"], facts["tokens"], facts["minutes"], facts["seeds"])
    return tokenizer, model, done


def main() -> None:
    arguments = parse_arguments()
    torch.manual_seed(arguments.seed)
    torch.set_num_threads(arguments.threads)
    conversations = training_conversations(arguments.seed)
    tokenizer, model, done = start(arguments, conversations)
    print(f"{model.num_parameters():,} parameters, {len(tokenizer)} tokens in the vocabulary")
    batches = Batcher(tokenizer, arguments.batch_tokens).batches(conversations)
    train(model, batches, Budget(arguments.minutes, arguments.steps), done)
    model.bfloat16().save_pretrained(arguments.output)
    save_tokenizer(tokenizer, arguments.output)
    facts = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": describe_machine(),
        "software": describe_software(),
        "seeds": [*done.seeds, arguments.seed],
        "minutes": done.minutes,
        "steps": done.steps,
        "tokens": done.tokens,
        "final_loss": round(done.loss, 4),
        "parameters": model.num_parameters(),
    }
    (arguments.output / "training.json").write_text(json.dumps(facts, indent=2) + "\n")


if __name__ == "__main__":
    main()
