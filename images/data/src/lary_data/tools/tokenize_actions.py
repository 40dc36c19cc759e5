"""`lary-orch data tokenize-actions`: the codes of action chunks, written into trajectories."""

from pathlib import Path

import click

FOLDER = click.Path(file_okay=False, path_type=Path)


@click.command()
@click.option("-d", "--dataset", required=True, help="Dataset key: a set with actions: and a group: (the episode).")
@click.option("-m", "--model", required=True, help="Model key of a trained action tokenizer.")
@click.option("--split", "splits", multiple=True, help="Split; repeatable [all of the dataset's].")
@click.option("--variant", help="Of the store, where there are several; all have the same codes.")
@click.option("--store", "name", help="The store's folder, or how its name begins, where there are several.")
@click.option("--into", type=click.Choice(["lerobot", "npz", "tfrecord"]), required=True, help="What is written.")
@click.option("--from", "source", type=FOLDER, help="The LeRobot v3 dataset, or the folder of TFRecord shards.")
@click.option("--to", "out", type=FOLDER, required=True, help="New folder.")
@click.option("--step", help="Column of the chunk's first step [the last number in the first frame's name].")
@click.option("--codes", type=click.IntRange(min=2), help="Of the codebook [the largest number in use, plus one].")
@click.option("--replace", is_flag=True, help="Replace action_token* columns that the trajectories have.")
def command(
    dataset: str, model: str, splits: tuple[str, ...], variant: str | None, name: str | None, into: str,
    source: Path | None, out: Path, step: str | None, codes: int | None, replace: bool,
) -> None:  # fmt: skip
    """Write the codes of action chunks into trajectories: action_token, action_token_valid, action_token_model.

    action_token are the T codes of the chunk that begins at a step. A step whose chunk passes the episode's end, or
    whose row failed, is not valid, and counted. All else stays as it is; videos are linked. The same command again
    goes on where it was killed. The codes are those of a store: extract first.

    \b
    lary-orch run -m action-tokenizer-demo-3f9c12ab34de -d aloha
    lary-orch data tokenize-actions -d aloha -m action-tokenizer-demo-3f9c12ab34de \\
        --into lerobot --from /data/aloha --to /data/aloha_tokens
    """
    from lary_schema.mounts import Mounts

    from lary_data.action_tokens import join_tokens
    from lary_data.annotating import Annotation
    from lary_data.datasets import find_dataset
    from lary_data.exporting import find_store
    from lary_data.migration import model_key, wanted_splits
    from lary_data.writing import check_source, write_labels

    check_source(into, source)
    files, latents = find_dataset(dataset), Mounts.from_env().latents
    labels = {
        split: join_tokens(
            files, split, find_store(files, split, model_key(model), variant, name, latents), codes, step
        )
        for split in wanted_splits(files, splits, one=False)
    }
    write_labels(Annotation(labels, out, replace), f"tokenizing {dataset}", into, source)
