"""Where one output stands in its form."""

from __future__ import annotations

from collections.abc import Sequence

from llguidance import LLMatcher

from services.mesh.errors import InvalidRequestError
from services.worker.engines.constraints import Words
from services.worker.engines.forms import CONSTRAINT_FIELD


class GuidanceConstraint:
    """See services.worker.engines.constraints.TokenConstraint.

    Args:
        matcher: the library's state, which is this constraint's own.
    """

    def __init__(self, matcher: LLMatcher) -> None:
        self.matcher = matcher
        self.is_complete = matcher.is_stopped()
        """Whether nothing can follow."""

    def fill_allowed(self, words: Words) -> None:
        """Sets the bits of the tokens that may come next."""
        self.matcher.unsafe_compute_mask_ptr(words.ctypes.data, words.nbytes)
        if self.matcher.is_error():
            words[:] = 0

    def accept(self, token_id: int) -> None:
        """Takes the output's next token."""
        if not self.matcher.consume_token(token_id):
            raise self._misfit(token_id)
        self.is_complete = self.matcher.is_stopped()

    def rebuild(self, output_ids: Sequence[int]) -> None:
        """Stands as if made anew and given these tokens."""
        self.matcher.reset()
        self.is_complete = self.matcher.is_stopped()
        for token_id in output_ids:
            self.accept(token_id)

    def _misfit(self, token_id: int) -> InvalidRequestError:
        return InvalidRequestError(
            f"token {token_id} does not fit the form that the output must have",
            field=CONSTRAINT_FIELD,
        )
