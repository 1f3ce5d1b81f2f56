"""What every command, and every command with commands of its own, does with what was typed."""

from __future__ import annotations

from collections import Counter

import click


class Command(click.Command):
    """Refuses an option that is given twice but holds one value: the first would be dropped without a word."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not ctx.resilient_parsing:
            _, _, order = self.make_parser(ctx).parse_args(args=list(args))
            for param, times in Counter(order).items():
                if times > 1 and _holds_one(param):
                    several = ", with commas between several" if param.type.name == "list" else ""
                    ctx.fail(
                        f"{param.opts[0]} is given {times} times and takes one value. Give it once{several}."
                    )
        return super().parse_args(ctx, args)


def _holds_one(param: click.Parameter) -> bool:
    """Whether it is an option with a value, and with no more than one."""
    return isinstance(param, click.Option) and not (param.multiple or param.is_flag or param.count)


class Group(click.Group):
    """Answers a mistyped command with the nearest one, as not every release of click does."""

    command_class = Command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        known = self.list_commands(ctx)
        if args and args[0] not in known and not args[0].startswith("-"):
            from edgec.graph.errors import did_you_mean

            ctx.fail(f"unknown command {args[0]!r}. {did_you_mean(args[0], known)}")
        return super().resolve_command(ctx, args)
