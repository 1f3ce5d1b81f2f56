"""The third step of a run: what its budget is priced by, and at which size of the input."""

from __future__ import annotations

from dataclasses import dataclass

from edgec.compiler.latency.prices import first_prices, settle
from edgec.compiler.pipeline.workspace import Workspace
from edgec.compiler.plan.plan import Plan
from edgec.compiler.search.portfolio import Portfolio, choose_form
from edgec.compiler.search.resolution import Compared, choose_size
from edgec.passes.base import LatencyModel


@dataclass(frozen=True)
class Priced:
    """The plan with its size and form chosen, what its layers cost in time (None: nobody knows), and what was compared for it."""

    plan: Plan
    prices: LatencyModel | None
    compared: Compared | None
    """Sizes of the input."""
    forms: Portfolio | None
    """Forms of compression."""


def price(plan: Plan, space: Workspace) -> Priced:
    """Prices come first, so that sizes can be compared under them; then they are settled by what they lead to at that size.

    Raises UsageError where a latency budget has nothing to go by.
    """
    first = first_prices(plan, space)
    plan, compared = choose_size(plan, first.prices, space)
    plan, forms = choose_form(plan, first.prices, space)
    plan, prices = settle(plan, first, space)
    return Priced(plan, prices, compared, forms)
