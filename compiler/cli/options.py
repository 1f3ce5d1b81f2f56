"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from edgec.compiler.cli import params
from edgec.graph import values
from edgec.graph.foreign.loading import Loading, parse_memory

F = TypeVar("F", bound=Callable[..., Any])
LOADING = values.Range(0.1, 1e6)
"""Seconds."""


def data_options(command: F) -> F:
    """Calibration data and its preprocessing."""
    for option in reversed(
        [
            click.option("--data", metavar="PATH", help="Unlabelled inputs: a folder of pictures, .npz, .npy, a folder of .npy; or the word 'random' for noise."),
            click.option("--samples", type=params.whole(values.COUNT), metavar="NUMBER", help="Use that many of them, chosen by --seed."),
            click.option("--skip-bad", is_flag=True, help="Skip damaged pictures (they are named) instead of stopping."),
            click.option("--mean", type=params.setting("mean"), metavar="NUMBERS", help="Subtracted per channel after --scale, e.g. 0.485,0.456,0.406."),
            click.option("--std", type=params.setting("std"), metavar="NUMBERS", help="Divided by, per channel."),
            click.option("--scale", type=params.setting("scale"), metavar="NUMBER", help="Pixels are multiplied by it first, e.g. 1/255."),
            click.option("--layout", type=params.word(("auto", "nchw", "nhwc")), help="Layout of stored arrays."),
            click.option("--resize", type=params.setting("resize"), metavar="SIZE", help="224: the short side; 224x320: height and width."),
            click.option("--crop", type=params.setting("crop"), metavar="SIZE", help="Centre crop: 224 or 224x320."),
            click.option("--channels", type=params.word(("rgb", "bgr", "gray", "rgba")), help="Channel order of the network's input."),
            click.option("--letterbox", type=params.setting("letterbox"), metavar="GREY", help="Keep the aspect ratio when resizing; fill with this grey (0 to 255)."),
            click.option("--letterbox-at", type=params.setting("letterbox_at"), metavar="PLACE", help="Where the picture stands in the grey: corner (top left) or centre, as Ultralytics has it. [default: corner]"),
        ]
    ):  # fmt: skip
        command = option(command)
    return command


def loading_options(command: F) -> F:
    """How model files are read: in a child process with limits, and nothing in them is run."""
    for option in reversed(
        [
            click.option("--load-timeout", type=params.seconds(LOADING), metavar="TIME", help="Reading a model may take that long, e.g. 60 or 5m. [default: by its size]"),
            click.option("--load-memory", type=params.Read("size", parse_memory), metavar="SIZE", help="And that much memory, e.g. 2G. [default: by its size and what is free]"),
            click.option("--trust", is_flag=True, help="Run the pickles and the code that a .pt2 file holds, with your rights."),
        ]
    ):  # fmt: skip
        command = option(command)
    return command


def loading(given: dict[str, Any]) -> Loading:
    """The settings that `loading_options` took."""
    return Loading(given["load_timeout"], given["load_memory"], given["trust"])


SETTINGS = ("mean", "std", "scale", "layout", "resize", "crop", "channels", "letterbox", "letterbox_at")


def preprocessing(given: dict[str, Any]) -> dict[str, Any]:
    """The recipe's ``preprocess`` section; options that were not given are left out."""
    return {key: given[key] for key in SETTINGS if given.get(key) is not None}
