"""Passes in order, each checked; what they leave is kept for --resume, in a run folder that is never half-written."""
