"""`lary-orch data annotate`: a finished store's latents, written into trajectories."""

from pathlib import Path

import click

FOLDER = click.Path(file_okay=False, path_type=Path)


@click.command()
@click.option("-d", "--dataset", required=True, help="Dataset key: image pairs with a group: (the episode).")
@click.option("-m", "--model", required=True, help="Model key; it has code numbers.")
@click.option("--split", "splits", multiple=True, help="Split; repeatable [all of the dataset's].")
@click.option("--variant", help="Of the store, where there are several; its vectors become latent_z.")
@click.option("--store", "name", help="The store's folder, or how its name begins, where there are several.")
@click.option("--into", type=click.Choice(["lerobot", "npz", "tfrecord"]), required=True, help="What is written.")
@click.option("--from", "source", type=FOLDER, help="The LeRobot v3 dataset, or the folder of TFRecord shards.")
@click.option("--to", "out", type=FOLDER, required=True, help="New folder.")
@click.option("--layout", type=click.Choice(["p2t"]), default="p2t", expose_value=False, help="Of tfrecord [p2t].")
@click.option("--dt", type=click.IntRange(min=1), help="Refuse pairs that are not so many steps apart.")
@click.option("--step", help="Column of the first frame's step [the last number in its file's name].")
@click.option("--codes", type=click.IntRange(min=2), help="Of the codebook [the largest number in use, plus one].")
@click.option("--replace", is_flag=True, help="Replace latent_* columns that the trajectories have.")
def command(
    dataset: str, model: str, splits: tuple[str, ...], variant: str | None, name: str | None, into: str,
    source: Path | None, out: Path, dt: int | None, step: str | None, codes: int | None, replace: bool,
) -> None:  # fmt: skip
    """Write latents into trajectories: latent_idx, latent_z, latent_valid, latent_dt and latent_model for each step.

    A step without a pair (at an episode's end, or whose row failed) is not valid, and counted. All else stays as it is;
    videos are linked. The same command again goes on where it was killed.

    \b
    lary-orch data annotate -d aloha -m univla-lam-demo-two-3f9c12ab34de --variant codebook \\
        --into lerobot --from /data/aloha --to /data/aloha_latents
    lary-orch data annotate -d demo_arm_long -m moto-demo-3f9c12ab34de --into npz --to labels
    """
    from lary_schema.mounts import Mounts

    from lary_data.annotating import Annotation
    from lary_data.datasets import find_dataset
    from lary_data.exporting import find_store
    from lary_data.joining import join
    from lary_data.migration import model_key, wanted_splits
    from lary_data.writing import check_source, write_labels

    check_source(into, source)
    files, latents = find_dataset(dataset), Mounts.from_env().latents
    labels = {
        split: join(files, split, find_store(files, split, model_key(model), variant, name, latents), dt, codes, step)
        for split in wanted_splits(files, splits, one=False)
    }
    write_labels(Annotation(labels, out, replace), f"annotating {dataset}", into, source)
