"""Labels as columns of a LeRobot v3 dataset: new data files and `info.json`; videos are linked, the rest is copied."""

import json
import shutil
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
from lary_schema.atomic import publish_text, replacing
from lary_schema.base import ContractError
from numpy.typing import NDArray

from lary_data.annotating import LOG, SETTINGS, Annotation, link
from lary_data.labels import Arrays, Counts, Labels
from lary_data.lerobot_info import Info
from lary_data.progress import Tick

V2_TO_V3 = "python -m lerobot.datasets.v30.convert_dataset_v21_to_v30 --repo-id=OWNER/NAME"
_HF = b"huggingface"
"""Key of the columns' types that the `datasets` package keeps in a table's schema."""


def write_lerobot(annotation: Annotation, root: Path, tick: Tick) -> Counts:
    """A dataset in `annotation.out` that is `root` with the labels as columns; what has several axes is flat.

    Raises ContractError for a dataset of another version, one that has such columns, and where an episode's rows and
    the store's pairs contradict each other.
    """
    info = Info(root / "meta" / "info.json")
    version = str(info["codebase_version"])
    if not version.startswith("v3."):
        raise ContractError(f"{info.path}: codebase_version {version!r}; v3 is annotated. Convert it first: {V2_TO_V3}")
    if annotation.out.resolve() == root.resolve():
        raise ContractError(f"{root}: is the dataset itself; choose another --to")
    features = _features(annotation, info)
    by_number = _by_number(annotation.all_episodes())
    annotation.claim(into="lerobot", dataset=str(root.resolve()))
    counts = Counts()
    tables = sorted((root / "data").rglob("*.parquet"))
    pairs = [(table, annotation.out / table.relative_to(root)) for table in tables]

    def write(source: Path, target: Path, mine: Counts) -> None:
        _write_table(annotation, by_number, features, (source, target), mine)

    annotation.write_files(pairs, write, counts, tick)
    _bring_along(root, annotation.out)
    content = info.content | {"features": features}
    publish_text(annotation.out / "meta" / "info.json", json.dumps(content, indent=4, ensure_ascii=False) + "\n")
    annotation.finish(annotation.out / "meta", counts)
    return counts


def _features(annotation: Annotation, info: Info) -> dict[str, Any]:
    """All features, those of the labels last."""
    features, labels = info.features(), annotation.any
    annotation.refuse_present(features, str(info.path))
    kept = {name: feature for name, feature in features.items() if name not in labels.names}

    def one(dtype: str, width: int = 1) -> dict[str, Any]:
        return {"dtype": dtype, "shape": [width], "names": None}

    made = {column.name: one(column.dtype, column.width) for column in labels.columns} | {labels.flag: one("bool")}
    kinds = {"i": "int64", "U": "string"}
    return kept | made | {name: one(kinds[value.dtype.kind]) for name, value in labels.constants.items()}


def _by_number(episodes: Mapping[str, Labels]) -> dict[int, tuple[str, Labels]]:
    """By `episode_index`: the CSV's names of episodes are these numbers."""
    found = {}
    for name, labels in episodes.items():
        if not name.isdecimal():
            raise ContractError(
                f"episode {name!r} is no episode_index; annotate with the set that `data manifest lerobot` made of "
                "this dataset"
            )
        found[int(name)] = (name, labels)
    return found


def _write_table(
    annotation: Annotation,
    by_number: Mapping[int, tuple[str, Labels]],
    features: Mapping[str, Any],
    files: tuple[Path, Path],
    counts: Counts,
) -> None:
    source, target = files
    try:
        file = pyarrow.parquet.ParquetFile(source)
        table = file.read()
    except (pyarrow.ArrowException, OSError) as error:
        raise ContractError(f"{source}: no table: {error}") from None
    names = annotation.any.names
    table = table.drop_columns([name for name in names if name in table.column_names])
    arrays = _labelled(table, by_number, annotation, source, counts)
    for name in names:
        table = table.append_column(name, _column(arrays[name], features[name]["shape"][0]))
    table = table.replace_schema_metadata(_metadata(table.schema.metadata or {}, names, features))
    group = max(1, file.metadata.row_group(0).num_rows) if file.metadata.num_row_groups else None
    compression = file.metadata.row_group(0).column(0).compression if group else "SNAPPY"
    with replacing(target) as draft:
        pyarrow.parquet.write_table(table, draft, row_group_size=group, compression=compression)


def _labelled(
    table: pyarrow.Table,
    by_number: Mapping[int, tuple[str, Labels]],
    annotation: Annotation,
    source: Path,
    counts: Counts,
) -> Arrays:
    """The labels of a table's rows, in their order."""
    numbers, frames = (table[name].to_numpy().astype(np.int64) for name in ("episode_index", "frame_index"))
    rows, labels = len(numbers), annotation.any
    found: Arrays = {column.name: np.zeros((rows, *column.shape), column.dtype) for column in labels.columns}
    found[labels.flag] = np.zeros(rows, bool)
    for number, at in _rows_of(numbers).items():
        if sorted(frames[at].tolist()) != list(range(len(at))):
            raise ContractError(f"{source}: episode {number}: its frame_index are not 0 to {len(at) - 1}, each once")
        name, own = by_number.get(number, (str(number), labels))
        arrays = own.of(name, len(at), counts)
        for key in found:
            found[key][at] = arrays[key][frames[at]]
    return found | {name: np.full(rows, value) for name, value in labels.constants.items()}


def _rows_of(numbers: np.ndarray[Any, np.dtype[np.int64]]) -> dict[int, np.ndarray[Any, np.dtype[np.int64]]]:
    by_number: dict[int, list[int]] = defaultdict(list)
    for at, number in enumerate(numbers.tolist()):
        by_number[number].append(at)
    return {number: np.array(at, np.int64) for number, at in by_number.items()}


def _column(values: NDArray[Any], width: int) -> pyarrow.Array:
    """Rows of one number are no lists: so the dataset's readers have it."""
    flat = pyarrow.array(values.ravel().tolist() if values.dtype.kind == "U" else values.ravel())
    return flat if width == 1 else pyarrow.FixedSizeListArray.from_arrays(flat, width)


def _metadata(metadata: dict[bytes, bytes], names: Sequence[str], features: Mapping[str, Any]) -> dict[bytes, bytes]:
    """With the labels' types where the table says those of its columns."""
    if _HF not in metadata:
        return metadata
    said = json.loads(metadata[_HF])
    known = said.get("info", {}).get("features")
    if not isinstance(known, dict):
        return metadata
    for name in names:
        value: dict[str, Any] = {"dtype": features[name]["dtype"], "_type": "Value"}
        length = features[name]["shape"][0]
        known[name] = {"feature": value, "length": length, "_type": "Sequence"} if length > 1 else value
    return metadata | {_HF: json.dumps(said).encode()}


def _bring_along(root: Path, out: Path) -> None:
    """Everything but tables, `info.json` and notes of such tools: videos and images are linked, the rest copied."""
    for source in _others(root):
        target = out / source.relative_to(root)
        if source.relative_to(root).parts[0] in ("videos", "images"):
            link(source, target)
        elif not target.is_file() or target.stat().st_size != source.stat().st_size:
            with replacing(target) as draft:
                shutil.copyfile(source, draft)


def _others(root: Path) -> Iterator[Path]:
    for source in sorted(root.rglob("*")):
        relative = source.relative_to(root)
        made_here = relative.as_posix() in ("meta/info.json", SETTINGS, LOG)
        if source.is_file() and relative.parts[0] != "data" and not made_here:
            if relative.parts[0].startswith("."):
                continue
            yield source
