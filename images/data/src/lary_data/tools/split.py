"""`lary-orch data split`: train and val of a metadata CSV."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click
from lary_schema.option_types import FiniteRange

if TYPE_CHECKING:
    from lary_schema.groups import Grouping

FILE = click.Path(dir_okay=False, path_type=Path)


@click.command()
@click.argument("source", type=click.Path(exists=True, dir_okay=False, path_type=Path), metavar="CSV")
@click.option("--ratio", type=FiniteRange(0, 1, min_open=True, max_open=True), default=0.3, show_default=True,
              help="Share of val.")  # fmt: skip
@click.option("--seed", type=click.IntRange(0), default=42, show_default=True, help="The same seed, the same rows.")
@click.option("--stratify", metavar="COLUMN", help="Have every class of this column in val as often as in train.")
@click.option("--group", "groups", metavar="COLUMN", multiple=True,
              help="Keep rows together that agree in this column, such as an episode; repeatable.")  # fmt: skip
@click.option("--group-pattern", "pattern", metavar="REGEX",
              help="With one --group: the part (?P<group>...) of its cells is the group.")  # fmt: skip
@click.option("--train", type=FILE, help="CSV of train [next to CSV: its name with `train` for `all`, or `_train`].")
@click.option("--val", type=FILE, help="CSV of val [likewise].")
@click.option("--overwrite", is_flag=True, help="Replace CSVs that are there already.")
def command(
    source: Path, ratio: float, seed: int, stratify: str | None, groups: tuple[str, ...], pattern: str | None,
    train: Path | None, val: Path | None, overwrite: bool,
) -> None:  # fmt: skip
    r"""Split a metadata CSV into train and val.

    Every row lands in exactly one, in the CSV's order. Rows of one episode are alike: use --group for them, or a
    probe is scored on what it has seen; what to write into the dataset's card is printed. Several columns are joined
    in a new column `group`. A class with a single row is trained on.

    \b
    lary-orch data split all_clips.csv --stratify action
    lary-orch data split pairs.csv --group dataset --group episode_id --ratio 0.25
    lary-orch data split pairs.csv --group src_img --group-pattern '(?P<group>ep_\d+)/'
    """
    from lary_schema.base import ContractError
    from lary_schema.groups import Grouping

    from lary_data import splits

    if stratify and groups:
        raise ContractError("--stratify and --group exclude each other: whole groups cannot be assigned by class")
    if pattern is not None and len(groups) != 1:
        raise ContractError("--group-pattern needs one --group: the column that it is searched in")
    groupings = [Grouping.parse({"column": column, "pattern": pattern}, "--group") for column in groups]
    columns = [stratify] if stratify else []
    keys = splits.read_groups(source, groupings) if groupings else splits.read_keys(source, columns)
    made = splits.made(keys, ratio, seed, by="class" if stratify else "group" if groups else None)
    names = splits.default_names(source)
    targets = (train or source.with_name(names[0]), val or source.with_name(names[1]))
    joined = keys if len(groupings) > 1 else None
    splits.write(source, made.val, targets, overwrite=overwrite, groups=joined)
    held = int(made.val.sum())
    click.echo(f"{targets[0]}: {len(keys) - held} rows\n{targets[1]}: {held} rows")
    if groupings:
        click.echo(f"for the dataset's card: {card_line(groupings)}", err=True)
    if made.singles:
        click.echo(f"in train alone, having one row: {', '.join(made.singles)}", err=True)


def card_line(groupings: "Sequence[Grouping]") -> str:
    """What a dataset's card says of the groups that were kept whole."""
    from lary_data.manifest import GROUP_COLUMN

    if len(groupings) > 1:
        return f"group: {GROUP_COLUMN}"
    column, pattern = groupings[0].column, groupings[0].pattern
    if pattern is None:
        return f"group: {json.dumps(column, ensure_ascii=False)}"
    return f"group: {json.dumps({'column': column, 'pattern': pattern}, ensure_ascii=False)}"
