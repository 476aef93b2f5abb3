"""Prompts that begin alike: how much of them is cached, and what that saves."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks import machine
from benchmarks.engine import client, parts
from benchmarks.engine.client import EngineAnswer, EngineClient
from benchmarks.engine.prompts import random_prompts, word_ids
from services.worker.engines.settings import EngineSettings

SYSTEM_TOKENS = 1000
QUESTION_TOKENS = 40
QUESTIONS = 12
TURNS = 6
TURN_TOKENS = 60
ANSWER_TOKENS = 60
CHATS = 3

ABOUT = f"""\
One request at a time. *System prompt*: {QUESTIONS} prompts of the same {SYSTEM_TOKENS} tokens and
{QUESTION_TOKENS} of their own; the first, which fills the cache, is left out. *Chat*: {CHATS} chats
of {TURNS} turns, {TURN_TOKENS} tokens a turn and answers of {ANSWER_TOKENS}; a turn's prompt is all
that was said before it. The answers come back as other tokens of the same number, as random weights
say what no tokenizer would: only what was prompted before is found. *Nothing alike*: prompts of the
same lengths that are new from the first token on."""


def _run(case: str, load_average: float, answers: list[tuple[int, EngineAnswer]]) -> dict[str, Any]:
    first_ms = [answer.first_token_s * 1000 for _, answer in answers]
    share = sum(answer.cached_tokens for _, answer in answers) / sum(size for size, _ in answers)
    return {
        "case": case,
        "load_average_1m_before": load_average,
        "prompt_tokens": [size for size, _ in answers],
        "cached_tokens": [answer.cached_tokens for _, answer in answers],
        "first_token_ms": [round(each, 3) for each in first_ms],
        "shown": {
            "prompt tokens cached": f"{share:.0%}",
            "TTFT, median": f"{statistics.median(first_ms):.1f} ms",
            "TTFT, longest": f"{max(first_ms):.1f} ms",
        },
    }


class _Asker:
    def __init__(self, asking: EngineClient, words: Mapping[str, int]) -> None:
        self._asking = asking
        self._words = words

    def new(self, tokens: int, seed: str) -> Iterator[tuple[int, ...]]:
        """Prompts that nobody has seen."""
        return (prompt.ids for prompt in random_prompts(self._words, tokens, seed))

    async def ask(self, ids: tuple[int, ...], answer_tokens: int) -> tuple[int, EngineAnswer]:
        return len(ids), await self._asking.ask(ids, answer_tokens)

    async def system_prompt(self, *, alike: bool) -> list[tuple[int, EngineAnswer]]:
        systems = self.new(SYSTEM_TOKENS, f"system {alike}")
        questions = self.new(QUESTION_TOKENS, f"question {alike}")
        system = next(systems)
        answers = []
        for _ in range(QUESTIONS):
            answers.append(await self.ask(system + next(questions), 1))
            if not alike:
                system = next(systems)
        return answers[1:]

    async def chats(self, *, alike: bool) -> list[tuple[int, EngineAnswer]]:
        answers = []
        for chat in range(CHATS):
            said: tuple[int, ...] = ()
            turns = self.new(TURN_TOKENS, f"turn {chat} {alike}")
            replies = self.new(ANSWER_TOKENS, f"reply {chat} {alike}")
            for turn in range(TURNS):
                said += next(turns)
                if not alike:
                    said = next(self.new(len(said), f"said {chat} {turn}"))
                answers.append(await self.ask(said, ANSWER_TOKENS))
                said += next(replies)
        return answers


async def take(settings: EngineSettings) -> parts.Part:
    """Takes all runs."""
    part = parts.begin(
        "prefix cache",
        title="Prompts that begin alike",
        about=ABOUT,
        dtype=settings.dtype,
        threads=settings.threads or "default",
    )
    async with client.running(settings) as asking:
        asker = _Asker(asking, word_ids(Path(settings.model_path)))
        await asker.ask(next(asker.new(SYSTEM_TOKENS, "warm up")), ANSWER_TOKENS)
        for case, scenario in (("system prompt", asker.system_prompt), ("chat", asker.chats)):
            for alike in (True, False):
                load_average, disturbance = machine.load_average(), machine.Disturbance()
                answers = await scenario(alike=alike)
                name = case if alike else f"{case}, nothing alike"
                part["runs"].append(
                    {"others_cores": disturbance.cores()} | _run(name, load_average, answers)
                )
    part["is_complete"] = True
    return part
