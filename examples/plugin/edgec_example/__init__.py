"""A plug-in of edgec: what pyproject.toml names under `edgec.…` is found as soon as this package is installed."""

from pathlib import Path

GREENHOUSE = Path(__file__).parent / "greenhouse.yaml"
"""The target file; edgec reads it when somebody asks for the target."""
