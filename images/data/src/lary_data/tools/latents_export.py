"""`lary-orch latents export`: stores as LARYBench's latents."""

from pathlib import Path

import click

from lary_data.options import workers_option

FOLDER = click.Path(file_okay=False, path_type=Path)


@click.command()
@click.option("-m", "--model", required=True, help="Model key.")
@click.option("-d", "--dataset", required=True, help="Dataset key.")
@click.option("--split", "splits", multiple=True, help="Split; repeatable [all of the dataset's].")
@click.option("--variant", help="Of the store, where there are several.")
@click.option("--store", "name", help="The store's folder, or how its name begins, where there are several.")
@click.option("--to", "root", type=FOLDER, required=True, help="Root of the .npz files: LARYBench's LARY_LA_DIR.")
@click.option("--csv-to", type=FOLDER, help="Folder of the CSVs: LARYBench's LARY_ROOT/data [--to].")
@click.option("--as", "model_name", help="Model key that LARYBench shall know the latents by [--model].")
@click.option("--drop-failed", is_flag=True, help="Leave failed rows out of the CSV.")
@click.option("--compress", is_flag=True, help="Deflate the files, as LARYBench does: smaller by a tenth, slower.")
@click.option("--overwrite", is_flag=True, help="Replace other latents and another CSV that are there.")
@workers_option
def command(
    model: str,
    dataset: str,
    splits: tuple[str, ...],
    variant: str | None,
    name: str | None,
    root: Path,
    csv_to: Path | None,
    model_name: str | None,
    drop_failed: bool,
    compress: bool,
    overwrite: bool,
    workers: int,
) -> None:
    """Write stores as LARYBench's latents: .npz files, and the dataset's CSV with la_path.

    Values are written as float32, exactly those of the store. Failed rows have an empty la_path; LARYBench's
    classification skips such rows, its regression stops at them, so leave them out for it by --drop-failed.
    The same command again goes on where it was killed.

    \b
    lary-orch latents export -m vjepa2 -d calvin --to "$LARY_LA_DIR" --csv-to "$LARY_ROOT/data"
    """
    from lary_schema.mounts import Mounts

    from lary_data.datasets import find_dataset
    from lary_data.exporting import Target, export, find_store
    from lary_data.migration import each, model_key, wanted_splits
    from lary_data.progress import progress

    files, latents = find_dataset(dataset), Mounts.from_env().latents

    def work(split: str) -> str:
        store = find_store(files, split, model_key(model), variant, name, latents)
        target = Target(root, csv_to or root, files, split, model_key(model_name or model))
        with progress(f"{model} on {dataset}/{split}", store.rows, "rows") as tick:
            options = {"drop_failed": drop_failed, "compress": compress, "overwrite": overwrite}
            ok = export(store, target, workers=workers, tick=tick, **options)
        return f"{target.csv}: {ok} of {store.rows} rows have a latent, in {target.folder}"

    each(wanted_splits(files, splits, one=False), work)
