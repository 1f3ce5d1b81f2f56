"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from edgec.compiler.cli import params
from edgec.graph import values

F = TypeVar("F", bound=Callable[..., Any])


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
            click.option("--channels", type=params.word(("rgb", "bgr", "gray")), help="Channel order of the network's input."),
            click.option("--letterbox", type=params.setting("letterbox"), metavar="GREY", help="Keep the aspect ratio when resizing; fill with this grey (0 to 255)."),
        ]
    ):  # fmt: skip
        command = option(command)
    return command


SETTINGS = ("mean", "std", "scale", "layout", "resize", "crop", "channels", "letterbox")


def preprocessing(given: dict[str, Any]) -> dict[str, Any]:
    """The recipe's ``preprocess`` section; options that were not given are left out."""
    return {key: given[key] for key in SETTINGS if given.get(key) is not None}
