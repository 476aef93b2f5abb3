"""Writes the model card of a checkpoint from what train.py and evaluate.py recorded beside it."""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path
from string import Template
from typing import Any

GOAL = 0.9
TEMPLATE = Path(__file__).with_name("model_card.md")


def _percent(row: dict[str, int]) -> str:
    return f"{row['right'] / row['asked']:.1%}"


def _column_name(run: dict[str, Any]) -> str:
    return f"{run['dtype']}, " + (
        f"temperature {run['temperature']}" if run["temperature"] else "greedy"
    )


def evaluation_table(runs: list[dict[str, Any]]) -> str:
    """A row for each category; the first run in full, the others in percent."""
    totals = [
        {key: sum(row[key] for row in run["categories"].values()) for key in ("right", "asked")}
        for run in runs
    ]
    lines = [
        f"| category | right | {' | '.join(map(_column_name, runs))} |",
        "|---|---:|" + "---:|" * len(runs),
    ]
    for category in runs[0]["categories"]:
        rows = [run["categories"][category] for run in runs]
        shares = " | ".join(map(_percent, rows))
        lines.append(f"| {category} | {rows[0]['right']} of {rows[0]['asked']} | {shares} |")
    shares = " | ".join(f"**{_percent(total)}**" for total in totals)
    lines.append(f"| **overall** | {totals[0]['right']} of {totals[0]['asked']} | {shares} |")
    return "\n".join(lines)


def weakest(run: dict[str, Any]) -> str:
    """Says plainly which categories miss the goal."""
    shares = {name: row["right"] / row["asked"] for name, row in run["categories"].items()}
    missed = sorted((share, name) for name, share in shares.items() if share <= GOAL)
    if not missed:
        return f"Every category is above {GOAL:.0%}, greedily."
    listed = ", ".join(f"{name} ({share:.1%})" for share, name in missed)
    return f"Not above {GOAL:.0%}, greedily: {listed}."


def model_card(checkpoint: Path) -> str:
    """Raises ValueError if the evaluation was of other weights than those in the folder."""
    config, training, evaluation = (
        json.loads((checkpoint / name).read_text())
        for name in ("config.json", "training.json", "evaluation.json")
    )
    weights = hashlib.sha256((checkpoint / "model.safetensors").read_bytes()).hexdigest()
    if weights != evaluation["weights_sha256"]:
        raise ValueError(
            f"{checkpoint}/evaluation.json is about other weights: run evaluate.py again"
        )
    return Template(TEMPLATE.read_text()).substitute(
        parameters=f"{evaluation['parameters']:,}",
        architecture=config["architectures"][0],
        layers=config["num_hidden_layers"],
        hidden=config["hidden_size"],
        feed_forward=config["intermediate_size"],
        heads=config["num_attention_heads"],
        kv_heads=config["num_key_value_heads"],
        head_size=config["head_dim"],
        context=config["max_position_embeddings"],
        vocabulary=config["vocab_size"],
        dtype=config["dtype"],
        minutes=f"{training['minutes']:g}",
        training_machine=training["machine"],
        steps=f"{training['steps']:,}",
        tokens=f"{training['tokens']:,}",
        final_loss=training["final_loss"],
        seeds=", then ".join(str(seed) for seed in training["seeds"]),
        training_date=training["date"],
        training_software=", ".join(
            f"{name} {version}" for name, version in training["software"].items()
        ),
        table=evaluation_table(evaluation["runs"]),
        weakest=weakest(evaluation["runs"][0]),
        evaluation_date=evaluation["date"],
        evaluation_machine=evaluation["machine"],
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Write a checkpoint's card, README.md, from what was recorded beside it.",
        epilog="example: python card.py --checkpoint model",
    )
    parser.add_argument(
        "--checkpoint", type=Path, required=True, help="the folder that evaluate.py measured"
    )
    checkpoint: Path = parser.parse_args().checkpoint
    (checkpoint / "README.md").write_text(model_card(checkpoint))


if __name__ == "__main__":
    main()
