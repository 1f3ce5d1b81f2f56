"""Whole blocks of a network: which can be taken out, what makes up for them, and gated blocks in their place."""
