"""A command with commands of its own."""

from __future__ import annotations

import click


class Group(click.Group):
    """Answers a mistyped command with the nearest one, as not every release of click does."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        known = self.list_commands(ctx)
        if args and args[0] not in known and not args[0].startswith("-"):
            from edgec.graph.errors import did_you_mean

            ctx.fail(f"unknown command {args[0]!r}. {did_you_mean(args[0], known)}")
        return super().resolve_command(ctx, args)
