"""The command line. Each command lives in a file of its own and is imported when it is called.

stdout carries the result, stderr progress and errors; exit codes are those of design section 7.
"""

from __future__ import annotations

import io
import os
import sys
import warnings
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from importlib import import_module
from typing import Any

import click

from edgec.compiler.cli.echo import echo_lines
from edgec.compiler.cli.ending import Ending
from edgec.compiler.cli.group import Group
from edgec.graph.disk import disk_error, is_disk_error
from edgec.graph.errors import EdgecError, RenamedOptionWarning
from edgec.graph.version import __version__

COMMANDS = {
    "compile": ("edgec.compiler.cli.compile_command", "Make a network smaller and faster: prune, recover, quantise, emit, measure."),
    "bench": ("edgec.compiler.cli.bench_command", "Measure or estimate the latency of artifacts."),
    "inspect": ("edgec.compiler.cli.inspect_command", "What a model costs, layer by layer, and what can be pruned."),
    "verify": ("edgec.compiler.cli.verify_command", "How far two models are apart, layer by layer."),
    "deploy": ("edgec.compiler.cli.deploy_command", "A folder that installs and runs on a device; with --device, do it there."),
    "report": ("edgec.compiler.cli.report_command", "Show a run, or compare several."),
    "passes": ("edgec.compiler.cli.passes_command", "List the passes, or explain one."),
    "targets": ("edgec.compiler.cli.targets_command", "List the targets, show one, or check a device against one."),
    "plugins": ("edgec.compiler.cli.plugins_command", "What other packages bring, and whether it can be used."),
}  # fmt: skip


class LazyGroup(Group):
    """A group that imports a command's file when the command is called, and not for listing it."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = import_module(COMMANDS[cmd_name][0]).command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in COMMANDS.items()])


@click.group(
    cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110}
)
@click.version_option(__version__, prog_name="edgec")
def cli() -> None:
    """Compile a trained convolutional network for small machines.

    Label-free: give a model and a folder of unlabelled inputs, get a smaller network as ONNX and TFLite, its accuracy
    against the original, its latency, and a report.

    \b
    edgec compile model.onnx --data images/ --target rpi4 --budget macs=50% -o out/
    """


def main() -> None:
    """Entry point: EdgecErrors become one message and their exit code; a traceback appears with -vv only."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a name may have letters that the terminal lacks
    with Ending() as ending, warnings.catch_warnings():
        warnings.showwarning = partial(_tell, warnings.showwarning)
        try:
            result: Any = cli.main(prog_name="edgec", standalone_mode=False)
            sys.stdout.flush()
            code = result if isinstance(result, int) else 0
        except BaseException as error:
            if "-vv" in sys.argv and not isinstance(error, (click.ClickException, click.exceptions.Abort)):
                raise
            code = _explain(error, ending)
    sys.exit(code)


def _tell(usual: Callable[..., None], message: Warning | str, *where: Any, **rest: Any) -> None:
    """A renamed option as a user reads it: its sentence, without the line of code that found it."""
    if not isinstance(message, RenamedOptionWarning):
        usual(message, *where, **rest)
        return
    with suppress(OSError):
        echo_lines(f"warning: {message}", err=True)


def _explain(error: BaseException, ending: Ending) -> int:
    """Say what went wrong; the exit code."""
    if ending.number is not None or isinstance(error, (click.exceptions.Abort, KeyboardInterrupt)):
        resume = "; run again with --resume to go on" if sys.argv[1:2] == ["compile"] else ""
        return _say(f"interrupted{resume}", ending.exit_code)
    if isinstance(error, click.ClickException):
        return _say(_sentence(error), error.exit_code)
    if isinstance(error, BrokenPipeError) or _is_broken_pipe(error):
        _drop_stdout()
        return 0
    if isinstance(error, EdgecError):
        return _say(str(error), error.exit_code)
    if isinstance(error, OSError) and is_disk_error(error):
        _drop_stdout()
        return _say(str(disk_error(error, None)), EdgecError.exit_code)
    if isinstance(error, MemoryError):
        return _say("out of memory\nUse fewer --samples or a smaller model.", 3)
    if isinstance(error, RecursionError):
        return _say("the graph is nested too deeply", 3)
    # The last door: what comes here is a defect of edgec, and is said to be one.
    what = f"internal error: {type(error).__name__}: {error}"
    return _say(f"{what}\nThis is a defect of edgec; -vv shows where.", 70)


def _is_broken_pipe(error: BaseException) -> bool:
    """click turns a broken pipe that it meets itself into an exit, whatever its mode: with stdout in a wrapper of its own.

    rich exits where it writes; click 8.5 exits when it is through with the error, which it no longer names then.
    """
    wrapped = type(sys.stdout).__module__.partition(".")[0] == "click"
    return isinstance(error, SystemExit) and (wrapped or isinstance(error.__context__, BrokenPipeError))


def _sentence(error: click.ClickException) -> str:
    """What click found wrong, in the form of edgec's own errors: what and where, then what to do."""
    context: click.Context | None = getattr(error, "ctx", None)
    see = "" if context is None else f"\nSee `{context.command_path} --help`."
    if isinstance(error, click.NoSuchOption):
        from edgec.graph.errors import did_you_mean

        known = [] if context is None else [name for one in context.command.params for name in one.opts]
        return f"unknown option {error.option_name!r}. {did_you_mean(error.option_name, known)}{see}"
    if isinstance(error, click.BadParameter) and error.param is not None:
        param = error.param
        named = (
            (param.metavar or str(param.name).upper()) if isinstance(param, click.Argument) else param.opts[0]
        )
        if isinstance(error, click.MissingParameter):
            return f"{named} is missing{see}"
        return f"{named}: {error.message}{see}"
    return f"{error.format_message()}{see}"


def _say(message: str, code: int) -> int:
    with suppress(OSError):  # stderr may be gone with the terminal
        echo_lines(f"error: {message}", err=True)
    return code


def _drop_stdout() -> None:
    """Nobody takes what is left in stdout's buffer: Python would complain about it at its end."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
