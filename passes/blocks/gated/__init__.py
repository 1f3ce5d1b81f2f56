"""Gated blocks in the place of regions: which part of a graph goes, with what it is fitted, and what is put there."""
