"""A click group that imports a command when it is called, so that `--help` stays fast.

The only module here that needs click: a package with a command line brings it.
"""

import difflib
import importlib
import sys
from collections.abc import Callable, Mapping
from typing import Any

import click


class LazyGroup(click.Group):
    """Knows the name and the line of help of each of its commands, and gets the command itself on use."""

    def __init__(
        self,
        *args: Any,
        lazy: Mapping[str, str],
        load: Callable[[str], click.Command],
        heading: str = "Commands",
        **attributes: Any,
    ) -> None:
        """`lazy` is command -> line of help, in the order of `--help`; `load(name)` gets a command of `lazy`."""
        super().__init__(*args, **attributes)
        self._lazy = lazy
        self._load = load
        self._heading = heading

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self._lazy)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return self._load(cmd_name) if cmd_name in self._lazy else None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does, and with the nearest names of an unknown command."""
        if (
            args
            and not args[0].startswith("-")
            and args[0] not in self.list_commands(ctx)
            and not ctx.resilient_parsing
        ):
            near = difflib.get_close_matches(args[0], self.list_commands(ctx))
            hint = f" Did you mean {' or '.join(near)}?" if near else ""
            ctx.fail(f"No such command {args[0]!r}.{hint}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section(self._heading):
            formatter.write_dl(list(self._lazy.items()))


def import_command(package: str, name: str) -> click.Command:
    """What the module of `package` that has the command's name calls `command`."""
    command = importlib.import_module(f"{package}.{name.replace('-', '_')}").command
    assert isinstance(command, click.Command)
    return command


def run_group(group: click.Command, program: str) -> None:
    """An image's command line. A ContractError is one readable message and its exit code; so is a disk that refuses."""
    from lary_schema.atomic import refused
    from lary_schema.base import ContractError, ExitCode
    from lary_schema.terminal import safe_output

    safe_output()
    try:
        group(prog_name=program)
    except ContractError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)
    except OSError as error:
        click.echo(f"error: {refused(error)}", err=True)
        sys.exit(ExitCode.BAD_JOB)
