"""Prints a sample of the corpus."""

from __future__ import annotations

import argparse
from itertools import islice

from corpus.mix import held_out_dialogues, training_conversations


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m corpus",
        description="Print training conversations, and held-out prompts with their right replies.",
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="the same seed gives the same corpus (default: 0)"
    )
    parser.add_argument(
        "--count", type=int, default=5, help="training conversations to print (default: 5)"
    )
    arguments = parser.parse_args()
    for conversation in islice(training_conversations(arguments.seed), arguments.count):
        print("-- training, plain text" if conversation.raw else "-- training")
        for message in conversation.messages:
            print(f"{message['role']:>9}: {message['content']}")
    for dialogue in held_out_dialogues(arguments.seed, per_category=1):
        print(f"-- held out, {dialogue.category}")
        if dialogue.system:
            print(f"{'system':>9}: {dialogue.system}")
        for exchange in dialogue.exchanges:
            print(
                f"{'user':>9}: {exchange.prompt}\n{'expected':>9}: {' | '.join(exchange.replies)}"
            )


if __name__ == "__main__":
    main()
