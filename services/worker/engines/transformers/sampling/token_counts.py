"""Which tokens a sequence holds, and how often: what penalties are computed from."""

from __future__ import annotations

from collections.abc import Sequence as Rows


class TokenCounts:
    """The different tokens of one sequence in order of appearance, prompt first, and how often the
    output holds each. A function of the two lists of ids.
    """

    def __init__(self, prompt_ids: Rows[int]) -> None:
        self.token_ids: list[int] = list(dict.fromkeys(prompt_ids))
        self.counts: list[int] = [0] * len(self.token_ids)
        self._places = {token_id: place for place, token_id in enumerate(self.token_ids)}
        self._counted = 0

    def follow(self, output_ids: Rows[int]) -> list[int]:
        """Counts what the output holds beyond the last call. Returns the places that changed."""
        new = output_ids[self._counted :]
        self._counted = len(output_ids)
        return [self._count(token_id) for token_id in new]

    def _count(self, token_id: int) -> int:
        place = self._places.setdefault(token_id, len(self.token_ids))
        if place == len(self.token_ids):
            self.token_ids.append(token_id)
            self.counts.append(0)
        self.counts[place] += 1
        return place
