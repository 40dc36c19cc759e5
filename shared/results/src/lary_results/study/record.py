"""`studies/KEY.json`: which model each arm of a study is for each seed. Written when a study is planned."""

from pathlib import Path

from lary_schema.base import Document
from lary_schema.cards import Key, Target
from lary_schema.training import Labelled

TRAINED, STUDIES = "trained", "studies"
"""Folders of a workspace, and of an import: checkpoints, and these records."""


class StudyEntry(Document):
    """One model of a study."""

    arm: Key
    model: Key
    """Its key: of a trained one known before it is there."""
    seed: int | None = None
    """None: the same for every seed (of the catalog, or a training that draws nothing)."""
    trained: bool = True
    probed: bool = True


class StudyRecord(Document):
    """All models of all arms and seeds, done or not."""

    key: Key
    title: str = ""
    dataset: Key
    protocol: Key
    target: Target = "absolute"
    """Of the actions and of the nuisance."""
    variants: tuple[Key, ...]
    """Of trained models; the first is the one that differences are of."""
    arms: dict[Key, str]
    """Title by name, in the order of the study."""
    baselines: dict[Key, str]
    compare: tuple[tuple[Key, Key], ...]
    labelled: Labelled | None = None
    entries: tuple[StudyEntry, ...]

    def of(self, name: str) -> list[StudyEntry]:
        """The models of an arm or a baseline."""
        return [entry for entry in self.entries if entry.arm == name]


def record_path(studies: Path, key: str) -> Path:
    return studies / f"{key}.json"


def records(studies: Path) -> list[StudyRecord]:
    """All studies that were planned in a workspace. Raises ContractError for a file that is none."""
    return [StudyRecord.read(path) for path in sorted(studies.glob("*.json"))]
