"""What passes that narrow a network until a budget is met have in common: exactly one of their budget options is given."""

from __future__ import annotations

from edgec.passes.base import Pass
from edgec.passes.budget import Budget, budgets_in, sole_budget


class Budgeted(Pass):
    """A pass with budget options (`budget_option`), one for each unit."""

    def check(self) -> None:
        """Raise UsageError for several budgets."""
        if any(budgets_in(self).values()):
            self.budget()

    def complete(self) -> None:
        """Raise UsageError for no budget."""
        self.budget()

    def budget(self) -> Budget:
        """The one budget that is set. Raises UsageError for none or several."""
        return sole_budget(self.name, budgets_in(self))
