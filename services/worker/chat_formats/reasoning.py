"""Reasoning between two markers, before the answer."""

from __future__ import annotations

from dataclasses import dataclass

from services.worker.engines.forms import AnyText, Form, InOrder, Literal, Marker, OneOf

# Some families put nothing between their reasoning and the answer.
_BREAK = OneOf((Literal(""), Literal("\n\n")))


@dataclass(frozen=True)
class ReasoningTags:
    """What a family writes around its reasoning."""

    opening: str = "<think>"
    closing: str = "</think>"

    def is_opened_by(self, prompt_end: str) -> bool:
        """Whether the prompt ends within the reasoning, for the model to go on with it."""
        return prompt_end.rstrip().endswith(self.opening)

    def is_closed_by(self, prompt_end: str) -> bool:
        """Whether the prompt ends behind the reasoning, so that there is none in the output."""
        return prompt_end.rstrip().endswith(self.closing)

    def form(self, prompt_end: str) -> Form:
        """The reasoning that an output may begin with."""
        if self.is_closed_by(prompt_end):
            return Literal("")
        rest = InOrder(
            (AnyText(without=(self.closing,)), Marker(self.closing), _BREAK),
        )
        if self.is_opened_by(prompt_end):
            return rest
        return OneOf((Literal(""), InOrder((Marker(self.opening), rest))))


THINK = ReasoningTags()
