"""Labels as features of episodes in TFRecord shards, as From Pixels to Tokens keeps them."""

import re
import shutil
from collections.abc import Mapping
from pathlib import Path

from lary_schema.atomic import replacing
from lary_schema.base import ContractError

from lary_data.annotating import Annotation
from lary_data.labels import Counts, Labels
from lary_data.progress import Tick
from lary_data.tfrecords import count_values, feature_entries, make_entry, make_example, read_records, write_record

PREFIX = "steps/"
"""Of a step's features in an episode; without it, features lie at the top."""
LENGTHS = ("is_first", "is_last", "is_terminal", "reward", "discount")
"""Features with one number a step: any of them says how long an episode is."""
BROUGHT = ("features.json", "dataset_info.json", "latents.json", "action_tokens.json")
"""Files next to the shards that are brought along."""


def write_tfrecords(annotation: Annotation, root: Path, tick: Tick) -> Counts:
    """Shards of `root` with the labels as features: flat, the flag as int64, and no single values.

    The n-th record over all shards in the order of their names is episode n of the CSV. Raises ContractError for
    damaged records, episodes of unknown length, and features that are there already.
    """
    shards = sorted(path for path in root.iterdir() if ".tfrecord" in path.name and path.is_file())
    if not shards:
        raise ContractError(f"{root}: no file with .tfrecord in its name")
    if annotation.out.resolve() == root.resolve():
        raise ContractError(f"{root}: holds the shards themselves; choose another --to")
    episodes = _by_number(annotation.all_episodes())
    annotation.claim(into="tfrecord", dataset=str(root.resolve()))
    begins, total = {}, 0
    for shard in shards:
        begins[shard] = total
        total += sum(1 for _ in read_records(shard))
    counts = Counts()

    def write(source: Path, target: Path, mine: Counts) -> None:
        with replacing(target) as draft, draft.open("wb") as file:
            for number, record in enumerate(read_records(source), begins[source]):
                where = f"{source}: episode {number}"
                write_record(file, _annotated(annotation, episodes.get(number), number, record, where, mine))

    annotation.write_files([(shard, annotation.out / shard.name) for shard in shards], write, counts, tick)
    for name in BROUGHT:
        if (root / name).is_file():
            with replacing(annotation.out / name) as draft:
                shutil.copyfile(root / name, draft)
    annotation.finish(annotation.out, counts)
    return counts


def _by_number(episodes: Mapping[str, Labels]) -> dict[int, tuple[str, Labels]]:
    found: dict[int, tuple[str, Labels]] = {}
    for name, labels in episodes.items():
        number = re.search(r"(\d+)\D*$", name)
        if number is None or int(number.group(1)) in found:
            raise ContractError(f"episode {name!r}: its last number does not tell it from the others")
        found[int(number.group(1))] = (name, labels)
    return found


def _annotated(
    annotation: Annotation, episode: tuple[str, Labels] | None, number: int, record: bytes, where: str, counts: Counts
) -> bytes:
    entries = feature_entries(record, where)
    prefix = PREFIX if any(name.startswith(PREFIX) for name in entries) else ""
    names = [column.name for column in annotation.any.columns] + [annotation.any.flag]
    annotation.refuse_present(entries, where, prefix)
    length = _length(entries, prefix, where)
    name, labels = episode or (str(number), annotation.any)
    arrays = labels.of(name, length, counts)
    made = {f"{prefix}{key}": make_entry(f"{prefix}{key}", arrays[key]) for key in names}
    return make_example({key: entry for key, entry in entries.items() if key not in made} | made)


def _length(entries: Mapping[str, bytes], prefix: str, where: str) -> int:
    found = [prefix + name for name in LENGTHS if prefix + name in entries]
    if not found:
        raise ContractError(
            f"{where}: has none of {', '.join(prefix + name for name in LENGTHS)}, so its length is unknown"
        )
    lengths = {count_values(entries[name], f"{where}: {name}") for name in found}
    if len(lengths) != 1:
        raise ContractError(f"{where}: {', '.join(found)} are of different lengths")
    return lengths.pop()
