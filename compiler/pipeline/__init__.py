"""Passes in order, each checked; what they leave is kept sealed for --resume, and lies in a run folder that is never half-written."""
