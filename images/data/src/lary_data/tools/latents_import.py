"""`lary-orch latents import`: LARYBench's latents into stores."""

from pathlib import Path

import click
from lary_schema.jobs import StoreDtype
from lary_schema.option_types import FiniteRange

from lary_data.options import workers_option

FOLDER = click.Path(file_okay=False, path_type=Path)


@click.command()
@click.option("-m", "--model", required=True, help="Model key: any name, also one that no image serves.")
@click.option("-d", "--dataset", required=True, help="Dataset key.")
@click.option("--split", "splits", multiple=True, help="Split; repeatable [all of the dataset's].")
@click.option("--from", "root", type=FOLDER, help="Root of the .npz files [the latents volume, LARY_LA_DIR].")
@click.option(
    "--csv", "csvs", type=click.Path(dir_okay=False, path_type=Path), multiple=True,
    help="CSV with la_path, of one --split; repeat for partitions, in order [found next to the dataset's CSV].",
)  # fmt: skip
@click.option(
    "--dtype", type=click.Choice(["float32", "float16"]), default="float32", show_default=True,
    help="Of the store. float16 halves it; float32 is what LARYBench wrote.",
)  # fmt: skip
@click.option(
    "--max-failed", type=FiniteRange(0, 1), default=0.01, show_default=True, help="Tolerated share of lost rows."
)
@workers_option
def command(
    model: str,
    dataset: str,
    splits: tuple[str, ...],
    root: Path | None,
    csvs: tuple[Path, ...],
    dtype: StoreDtype,
    max_failed: float,
    workers: int,
) -> None:
    """Take LARYBench's latents (CSV with la_path, and .npz files) into stores.

    The rows have to be those of the dataset's own CSV, in its order. Rows with an empty la_path, and files that
    are missing or damaged, are failed rows of the store. The same command again goes on where it was killed.
    Probe them with `lary-orch run -m MODEL -d DATASET --variant imported`; nothing else of the model is needed.

    \b
    lary-orch latents import -m dinov2 -d calvin
    lary-orch latents import -m mine -d libero --from /old/latent_actions --split val --csv val_la_libero_5_mine.csv
    """
    from lary_schema.mounts import Mounts

    from lary_data.datasets import find_dataset
    from lary_data.migration import Options, each, import_split, model_key, wanted_splits

    files, latents = find_dataset(dataset), Mounts.from_env().latents

    def work(split: str) -> str:
        options = Options(dtype=dtype, max_failed=max_failed, workers=workers)
        return import_split(files, split, model_key(model), root or latents, csvs, latents, options)

    each(wanted_splits(files, splits, one=bool(csvs)), work)
