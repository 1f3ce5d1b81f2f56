"""Smaller networks that are taught by the source: where they come from, and what they start from."""
