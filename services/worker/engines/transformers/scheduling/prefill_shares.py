"""Divides a step's prompt tokens among those that want some."""

from __future__ import annotations

from collections.abc import Sequence as Rows


def fair_shares(wanted: Rows[int], budget: int) -> list[int]:
    """Max-min fair shares of a budget: nobody gets more while someone with less wants more.

    So who wants little gets all of it at once, however much the others want. What cannot be divided
    goes to the earlier ones; a budget below their number goes to as many of the first.

    Source: Bertsekas and Gallager, Data Networks, 2nd ed., section 6.5.2.
    """
    shares = [0] * len(wanted)
    served = range(min(len(wanted), budget))
    modest_first = sorted(served, key=lambda at: (wanted[at], -at))
    for done, at in enumerate(modest_first):
        shares[at] = min(wanted[at], budget // (len(served) - done))
        budget -= shares[at]
    return shares
