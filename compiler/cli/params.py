"""What the options of commands admit: click types around the readers that recipes and passes have, too.

Values are read while the command line is parsed, before a model is opened. What a reader needs is imported when a value is read,
so that ``--help`` stays instant.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import click

from edgec.graph import values
from edgec.graph.errors import UsageError
from edgec.graph.values import NotAdmitted, Range

DURATION = Range(0, 86_400)
"""Seconds: a day."""
SUSTAINED = Range(1, 86_400)


class Read(click.ParamType):  # type: ignore[type-arg, unused-ignore]  # generic in newer clicks
    """A parameter that ``read`` reads."""

    def __init__(self, name: str, read: Callable[[Any], Any]) -> None:
        self.name = name
        self.read = read

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return self.read(value)
        except NotAdmitted as error:
            self.fail(str(error), param, ctx)
        except UsageError as error:
            self.fail(values.one_line(error), param, ctx)


def whole(within: Range) -> Read:
    """A whole number."""
    return Read("integer", partial(values.whole, within=within))


def number(within: Range) -> Read:
    """A finite number."""
    return Read("number", partial(values.number, within=within))


def seconds(within: Range = DURATION) -> Read:
    """A time, in seconds."""
    return Read("time", partial(values.seconds, within=within))


def word(words: Sequence[str]) -> Read:
    """One of ``words``."""
    return Read("|".join(words), partial(values.word, words=words))


def setting(key: str) -> Read:
    """A setting of the preprocessing."""

    def read(raw: Any) -> Any:
        from edgec.graph.preprocess import READERS

        return READERS[key](raw)

    return Read(key, read)


def _formats(raw: Any) -> tuple[str, ...]:
    known = ("onnx", "tflite")
    return tuple(dict.fromkeys(values.several(raw, lambda part: values.word(part, known))))


def _budget(raw: str) -> str:
    from edgec.passes.budget import parse_budget

    parse_budget(raw)
    return raw


def _resolution(raw: str) -> str:
    from edgec.compiler.read.fields import read_resolution

    return read_resolution(raw)


def _learn(raw: str) -> str:
    from edgec.compiler.read.fields import read_learn

    return read_learn(raw)


def _time(raw: str) -> str:
    from edgec.compiler.read.fields import read_time

    return read_time(raw)


def _pipeline(raw: str) -> str:
    from edgec.passes.pipeline_string import parse_pipeline

    parse_pipeline(raw)
    return raw


def _pass_name(raw: str) -> str:
    from edgec.passes.table import pass_class, pass_names

    return raw if raw in pass_names() else pass_class(raw).name


def _task(raw: str) -> str:
    from edgec.compiler.tasks.names import NAMES

    return values.word(raw, NAMES)


def _metric(raw: str) -> str:
    from edgec.compiler.read.fields import read_metric

    return read_metric(raw)


def _target(raw: str) -> str:
    from edgec.targets import target

    target(raw)
    return raw


def _jetpack(text: str) -> str:
    from edgec.targets.jetpack import jetpack

    return jetpack(text).name


def _device(raw: str) -> str:
    from edgec.runtime.devices import check_address

    check_address(raw)
    return raw


def _engine(raw: str) -> str:
    from edgec.runtime.agent.engines import engine_names
    from edgec.targets.estimator.coefficients import ENGINES
    from edgec.targets.jetpack import NO_DLA

    if raw.lower() == "dla":
        raise UsageError("edgec makes nothing for a DLA", why=NO_DLA, hint="Take the GPU: --engine tensorrt.")
    return values.word(raw, tuple(dict.fromkeys([*engine_names(), *ENGINES])))


def _system(raw: str) -> str:
    from edgec.targets.registry import systems

    return values.word(raw, tuple(systems()))


def _together(ctx: click.Context, param: click.Parameter, given: tuple[Any, ...]) -> Any:
    """Shapes of several inputs, each by its name, or the one of the first input."""
    if len(given) < 2:
        return given[0] if given else None
    try:
        return values.input_shape(given)
    except NotAdmitted as error:
        raise click.BadParameter(str(error), ctx, param) from None


SHARE = Read("share", values.share)
SHAPE = Read("shape", values.input_shape)
input_shape = click.option(
    "--input-shape",
    type=SHAPE,
    multiple=True,
    callback=_together,
    metavar="SHAPE",
    help="Shape of the first input without the batch, e.g. 3,224,224; or, once per input, name:1x3x224x224.",
)
FORMATS = Read("list", _formats)
BUDGET = Read("budget", _budget)
RESOLUTION = Read("size", _resolution)
LEARN = Read("off|on|auto", _learn)
TIME = Read("time", _time)
PIPELINE = Read("pipeline", _pipeline)
TASK = Read("task", _task)
METRIC = Read("metric", _metric)
PASS = Read("pass", _pass_name)
TARGET = Read("target", _target)
JETPACK = Read("release", _jetpack)
DEVICE = Read("address", _device)
ENGINE = Read("engine", _engine)
SYSTEM = Read("system", _system)
FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
"""A file that must be there."""


def threads(default: int | None, text: str) -> Callable[[Any], Any]:
    """The option ``--threads``; ``text`` says whose."""
    return click.option(
        "--threads",
        type=whole(values.THREADS),
        metavar="NUMBER",
        default=default,
        show_default=default is not None,
        help=text,
    )


def given(*names: str) -> list[str]:
    """Those of the current command's parameters that stand on the command line, as they are written there."""
    context = click.get_current_context()
    written = {param.name: param.opts[0] for param in context.command.params}
    source = click.core.ParameterSource.COMMANDLINE
    return [written[name] for name in names if context.get_parameter_source(name) is source]


def refuse(found: Sequence[str], why: str, hint: str | None = None) -> None:
    """Raise UsageError where ``found`` has an option that would do nothing here."""
    if found:
        raise UsageError(f"{found[0]} {why}", hint=hint)


def check_file(path: Path) -> None:
    """Raise UsageError where no file can be written at ``path``."""
    import os

    if path.is_dir():
        raise UsageError("this is a folder, not a file to write", where=str(path))
    folder = path.parent
    if not folder.is_dir():
        raise UsageError("cannot write", where=str(path), why=f"there is no folder {str(folder)!r}")
    if not os.access(folder, os.W_OK):
        raise UsageError("cannot write", where=str(path), why="permission denied")
