"""Layers that are one layer: parallel branches, layers in a row, twins. Exact but for float rounding."""
