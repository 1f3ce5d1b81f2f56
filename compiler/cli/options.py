"""Options that several commands share, and how their texts become values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from edgec.graph.errors import UsageError
from edgec.graph.foreign.loading import Loading, parse_memory, parse_seconds

F = TypeVar("F", bound=Callable[..., Any])


def data_options(command: F) -> F:
    """Calibration data and its preprocessing."""
    for option in reversed(
        [
            click.option("--data", metavar="PATH", help="Unlabelled inputs: a folder of pictures, .npz, .npy, a folder of .npy; or the word 'random' for noise."),
            click.option("--samples", type=click.IntRange(min=1), help="Use that many of them, chosen by --seed."),
            click.option("--skip-bad", is_flag=True, help="Skip damaged pictures (they are named) instead of stopping."),
            click.option("--mean", metavar="NUMBERS", help="Subtracted per channel after --scale, e.g. 0.485,0.456,0.406."),
            click.option("--std", metavar="NUMBERS", help="Divided by, per channel."),
            click.option("--scale", metavar="NUMBER", help="Pixels are multiplied by it first, e.g. 1/255."),
            click.option("--layout", type=click.Choice(["auto", "nchw", "nhwc"]), help="Layout of stored arrays."),
            click.option("--resize", metavar="SIZE", help="224: the short side; 224x320: height and width."),
            click.option("--crop", metavar="SIZE", help="Centre crop: 224 or 224x320."),
            click.option("--channels", type=click.Choice(["rgb", "bgr", "gray"]), help="Channel order of the network's input."),
            click.option("--letterbox", type=click.IntRange(0, 255), metavar="GREY", help="Keep the aspect ratio when resizing; fill with this grey."),
        ]
    ):  # fmt: skip
        command = option(command)
    return command


def loading_options(command: F) -> F:
    """How model files are read: in a child process with limits, and nothing in them is run."""
    for option in reversed(
        [
            click.option("--load-timeout", metavar="TIME", help="Reading a model may take that long, e.g. 60 or 5m. [default: by its size]"),
            click.option("--load-memory", metavar="SIZE", help="And that much memory, e.g. 2G. [default: by its size and what is free]"),
            click.option("--trust", is_flag=True, help="Run the pickles and the code that a .pt2 file holds, with your rights."),
        ]
    ):  # fmt: skip
        command = option(command)
    return command


def loading(values: dict[str, Any]) -> Loading:
    """The settings that `loading_options` took."""
    timeout, memory = values["load_timeout"], values["load_memory"]
    return Loading(
        timeout=None if timeout is None else parse_seconds(timeout),
        memory=None if memory is None else parse_memory(memory),
        trust=values["trust"],
    )


def preprocessing(values: dict[str, Any]) -> dict[str, Any]:
    """The recipe's ``preprocess`` section from command-line texts; options that were not given are left out."""
    from edgec.graph.preprocess import parse_numbers, parse_sizes

    found: dict[str, Any] = {}
    for key in ("mean", "std"):
        if values.get(key) is not None:
            found[key] = parse_numbers(values[key])
    if values.get("scale") is not None:
        numbers = parse_numbers(values["scale"])
        if len(numbers) != 1:
            raise UsageError(
                f"--scale takes one number, got {values['scale']!r}", hint="Use --std for one per channel."
            )
        found["scale"] = numbers[0]
    if values.get("resize") is not None:
        found["resize"] = parse_sizes(values["resize"])
    if values.get("crop") is not None:
        sizes = parse_sizes(values["crop"])
        found["crop"] = (sizes[0], sizes[-1])
    for key in ("layout", "channels", "letterbox"):
        if values.get(key) is not None:
            found[key] = values[key]
    return found


def parse_shape(text: str | None) -> tuple[int, ...] | None:
    """``3,224,224``."""
    if text is None:
        return None
    try:
        return tuple(int(part) for part in text.replace("x", ",").split(","))
    except ValueError:
        raise UsageError(f"not a shape: {text!r}", hint="Write 3,224,224.") from None


def parse_percent(text: str | None) -> float | None:
    """``1%`` or ``0.01`` as a fraction."""
    if text is None:
        return None
    try:
        value = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        raise UsageError(f"not a share: {text!r}", hint="Write 1% or 0.01.") from None
    if not 0 <= value <= 1:
        raise UsageError(f"{text!r} is not between 0% and 100%", hint="Write 1% or 0.01.")
    return value
