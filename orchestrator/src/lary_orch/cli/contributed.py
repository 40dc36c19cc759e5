"""Commands that other packages bring, found by the entry point group `lary.commands`.

An entry point is named as the command is: `conformance`, or `images export` for one in a group of ours.
"""

from importlib.metadata import entry_points

import click

GROUP = "lary.commands"


def find(name: str) -> click.Command | None:
    """The command of that name."""
    for point in entry_points(group=GROUP, name=name):
        command = point.load()
        assert isinstance(command, click.Command)
        return command
    return None


def group_of(prefix: str) -> type[click.Group]:
    """A group that also has the commands `PREFIX NAME`."""

    class Group(click.Group):
        def list_commands(self, ctx: click.Context) -> list[str]:
            names = (point.name for point in entry_points(group=GROUP))
            further = {name.removeprefix(f"{prefix} ") for name in names if name.startswith(f"{prefix} ")}
            return sorted({*super().list_commands(ctx), *further})

        def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
            return super().get_command(ctx, cmd_name) or find(f"{prefix} {cmd_name}")

    return Group
