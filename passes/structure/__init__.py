"""Budgets for the whole network and for its blocks: where they hold, what they cost, and widths that keep them all."""
