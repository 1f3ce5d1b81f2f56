"""What tasks and metrics are called, on the command line, in recipes and in reports."""

from __future__ import annotations

from typing import Literal, get_args

Name = Literal[
    "classification", "multi-label", "detection", "segmentation", "keypoints", "regression", "super-resolution", "embedding",
    "text-recognition",
]  # fmt: skip
NAMES: tuple[Name, ...] = get_args(Name)

METRIC_NAMES = ("top1", "agreement", "kl", "sqnr_db", "cosine")
"""Metrics that every run has: of `runtime.report.schema.Quality`."""
