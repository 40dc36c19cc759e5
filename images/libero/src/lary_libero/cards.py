"""Dataset cards and CSVs of generated episodes: image pairs with action chunks, and clips by task and by phase."""

import csv
from collections.abc import Iterable, Iterator, Sequence
from io import StringIO
from typing import Any, NamedTuple

import numpy as np
import yaml
from lary_schema.atomic import publish_text
from lary_schema.base import ContractError
from lary_schema.cards import Actions, DatasetCard, Labels, Normalisation, PairColumns, VideoColumns
from lary_schema.groups import Grouping

from lary_libero.layout import Layout
from lary_libero.lerobot import ACTION_NAMES
from lary_libero.writing import pair_starts

GROUPS = {"position": (0, 1, 2), "orientation": (3, 4, 5), "gripper": (6,)}
FRAMES = 9
"""Of a clip."""
SHORTEST = 5
"""Steps of a phase that makes a clip; a shorter one would be the same frames again and again."""
VAL_SHARE = 0.25
SPLITS = ("train", "val")
IDLE = "idle"


class Facts(NamedTuple):
    """What all cards of a set say."""

    key: str
    title: str
    source: str
    stride: int
    camera: str
    settings: str
    """Hash of all that the set depends on. It stands in every row: a latent store is found again by the hash of the CSV
    and not of the pictures, and sets of another size or seed may be the same in everything else that a row says."""
    nuisance: tuple[str, ...]


def write_cards(layout: Layout, facts: Facts, markers: Sequence[dict[str, Any]]) -> list[str]:
    """The CSVs of every set, then its card; for people, a line for each set. One that would have no row in a split is
    left out.

    Raises ContractError where that leaves no set.
    """
    sets = [_pairs(layout, facts, markers), _tasks(layout, facts, markers), _phases(layout, facts, markers)]
    written, left_out = [], []
    for card, rows in sets:
        by_split = {split: [row for row in rows if row["split"] == split] for split in SPLITS}
        path = layout.root / f"{card.key}.yaml"
        if without := _without(card, by_split, facts):
            path.unlink(missing_ok=True)
            left_out.append(f"no {path.name}: {without}")
            continue
        for split, lines in by_split.items():
            publish_text(layout.root / f"{card.key}_{split}.csv", _csv(lines))
        publish_text(path, _yaml(card))
        written.append(f"wrote {path}")
    if not written:
        raise ContractError(f"{layout.root}: {'; '.join(left_out)}; generate more or longer episodes of each task")
    return written + left_out


def _without(card: DatasetCard, by_split: dict[str, list[dict[str, str]]], facts: Facts) -> str | None:
    """What a set does not have and would need; None where it has all."""
    if empty := [split for split, rows in by_split.items() if not rows]:
        least = SHORTEST if card.labels is not None else facts.stride + 1
        return f"no episode of {' and '.join(empty)} has a row (of {least} steps or more)"
    return "all rows have one label" if _is_one_class(card, by_split["train"]) else None


def _is_one_class(card: DatasetCard, rows: list[dict[str, str]]) -> bool:
    return card.labels is not None and len({row[card.labels.column] for row in rows}) < 2


def split_of(place: int, count: int) -> str:
    """The split of a task's episode number `place` of `count`: the last quarter is val, one of two at least."""
    val = max(1, round(count * VAL_SHARE)) if count > 1 else 0
    return "val" if place >= count - val else "train"


def indices(start: int, end: int) -> str:
    """`FRAMES` frames at equal steps from `start` up to, not including, `end`."""
    return ",".join(str(int(frame)) for frame in np.linspace(start, end - 1, FRAMES).round())


def _common(marker: dict[str, Any], facts: Facts) -> dict[str, str]:
    return {
        "split": split_of(marker["place"], marker["count"]),
        "episode": f"{marker['episode']:06d}",
        "task": str(marker["task"]),
        "instruction": marker["instruction"],
        "success": str(int(marker["success_after_release"])),
        "settings": facts.settings,
    }


def _pairs(layout: Layout, facts: Facts, markers: Sequence[dict[str, Any]]) -> tuple[DatasetCard, list[dict[str, str]]]:
    def rows() -> Iterator[dict[str, str]]:
        for marker in markers:
            number = marker["episode"]
            for start in pair_starts(marker["length"], facts.stride):
                yield _common(marker, facts) | {
                    "src_img": layout.frame(number, start),
                    "tgt_img": layout.frame(number, start + facts.stride),
                    "action": layout.chunk(number, start),
                    **({"nuisance": layout.nuisance(number, start)} if facts.nuisance else {}),
                }

    card = DatasetCard(
        **_shared(f"{facts.key}_pairs", f"{facts.title}: image pairs and actions", facts), task="regression",
        columns=PairColumns(), actions=_actions(facts), nuisance=_nuisance(facts),
    )  # fmt: skip
    return card, list(rows())


def _tasks(layout: Layout, facts: Facts, markers: Sequence[dict[str, Any]]) -> tuple[DatasetCard, list[dict[str, str]]]:
    rows = [
        _common(m, facts) | _clip(layout, facts, m, 0, m["length"]) | {"label": m["name"]}
        for m in markers if m["length"] >= SHORTEST
    ]  # fmt: skip
    return _clips_card(facts, "tasks", "clips labelled by task"), rows


def _phases(
    layout: Layout, facts: Facts, markers: Sequence[dict[str, Any]]
) -> tuple[DatasetCard, list[dict[str, str]]]:
    rows = [
        _common(m, facts) | _clip(layout, facts, m, start, end) | {"label": phase}
        for m in markers for phase, start, end in m["phases"] if phase != IDLE and end - start >= SHORTEST
    ]  # fmt: skip
    return _clips_card(facts, "phases", "clips labelled by motion phase"), rows


def _clip(layout: Layout, facts: Facts, marker: dict[str, Any], start: int, end: int) -> dict[str, str]:
    return {
        "video_path": layout.video(facts.camera, marker["episode"]),
        "sample_indices": indices(start, end),
    }


def _clips_card(facts: Facts, kind: str, title: str) -> DatasetCard:
    return DatasetCard(
        **_shared(f"{facts.key}_{kind}", f"{facts.title}: {title}", facts), task="classification",
        columns=VideoColumns(), frames=FRAMES, labels=Labels(column="label"),
    )  # fmt: skip


def _shared(key: str, title: str, facts: Facts) -> dict[str, Any]:
    return {
        "key": key, "title": title, "metadata": (f"{key}_{{split}}.csv",), "root": ".",
        "group": Grouping(column="episode"), "instruction": "instruction",
        "license": "pictures of LIBERO's assets (data CC BY 4.0; most asset folders carry no licence of their own)",
        "source": facts.source,
    }  # fmt: skip


def _actions(facts: Facts) -> Actions:
    return Actions(
        folder=".", stride=facts.stride, dim=len(ACTION_NAMES), names=ACTION_NAMES, groups=GROUPS,
        normalisation=Normalisation(kind="train"), relative=Normalisation(kind="train"),
    )  # fmt: skip


def _nuisance(facts: Facts) -> Actions | None:
    """How far each perturbation moves from one picture of a pair to the other."""
    if not facts.nuisance:
        return None
    return Actions(
        column="nuisance", folder=".", stride=1, dim=len(facts.nuisance), names=facts.nuisance,
        normalisation=Normalisation(kind="train"),
    )  # fmt: skip


def _csv(rows: Iterable[dict[str, str]]) -> str:
    lines = list(rows)
    text = StringIO()
    writer = csv.DictWriter(
        text, [name for name in lines[0] if name != "split"], extrasaction="ignore", lineterminator="\n"
    )
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()


def _yaml(card: DatasetCard) -> str:
    fields = card.model_dump(mode="json", exclude_defaults=True)
    # A union is resolved by its tag, which is a default.
    fields["columns"]["input"] = card.columns.input
    if card.actions is not None:
        # Given, the relative target is probed as well.
        fields["actions"]["relative"] = {"kind": "train"}
    return yaml.safe_dump(fields, sort_keys=False, allow_unicode=True)
