"""The command line. Each command lives in a file of its own and is imported when it is called.

stdout carries the result, stderr progress and errors; exit codes are those of design section 7.
"""

from __future__ import annotations

import io
import sys
from importlib import import_module
from typing import Any

import click

import edgec
from edgec.compiler.cli.echo import echo_lines
from edgec.graph.errors import EdgecError

COMMANDS = {
    "compile": ("edgec.compiler.cli.compile_command", "Make a network smaller and faster: prune, recover, quantise, emit, measure."),
    "bench": ("edgec.compiler.cli.bench_command", "Measure or estimate the latency of artifacts."),
    "inspect": ("edgec.compiler.cli.inspect_command", "What a model costs, layer by layer, and what can be pruned."),
    "verify": ("edgec.compiler.cli.verify_command", "How far two models are apart, layer by layer."),
    "deploy": ("edgec.compiler.cli.deploy_command", "A folder that installs and runs on a device; with --device, do it there."),
    "report": ("edgec.compiler.cli.report_command", "Show a run, or compare several."),
    "passes": ("edgec.compiler.cli.passes_command", "List the passes, or explain one."),
    "targets": ("edgec.compiler.cli.targets_command", "List the targets, show one, or check a device against one."),
}  # fmt: skip


class LazyGroup(click.Group):
    """A group that imports a command's file when the command is called, and not for listing it."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = import_module(COMMANDS[cmd_name][0]).command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            from edgec.graph.errors import did_you_mean

            ctx.fail(f"unknown command {args[0]!r}. {did_you_mean(args[0], COMMANDS)}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in COMMANDS.items()])


@click.group(
    cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110}
)
@click.version_option(edgec.__version__, prog_name="edgec")
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
    verbose = "-vv" in sys.argv
    compiling = sys.argv[1:2] == ["compile"]
    interrupted = "interrupted; run again with --resume to go on" if compiling else "interrupted"
    try:
        result: Any = cli.main(standalone_mode=False)
    except click.exceptions.Abort:
        _fail(interrupted, 130)
    except click.ClickException as error:
        text = io.StringIO()
        error.show(text)
        echo_lines(text.getvalue(), err=True, end="")
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        _fail(interrupted, 130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(0)
    except EdgecError as error:
        if verbose:
            raise
        _fail(str(error), error.exit_code)
    except MemoryError:
        _fail("out of memory\nUse fewer --samples or a smaller model.", 3)
    except RecursionError:
        if verbose:
            raise
        _fail("the graph is nested too deeply", 3)
    except Exception as error:  # the last door: what comes here is a defect of edgec, and is said to be one
        if verbose:
            raise
        _fail(
            f"internal error: {type(error).__name__}: {error}\nThis is a defect of edgec; -vv shows where.",
            70,
        )
    sys.exit(result if isinstance(result, int) else 0)


def _fail(message: str, code: int) -> None:
    echo_lines(f"error: {message}", err=True)
    sys.exit(code)
