"""Which sources of the trainer make another key, and which are known to train the same bytes."""

import shutil
from pathlib import Path

import pytest
from lary_schema.base import file_sha256, fingerprint
from lary_trainer import registry
from lary_trainer.registry import own_sources
from lary_trainer.same_bytes import FIRST, SAME_BYTES

PACKAGE = Path(registry.__file__).parent


def test_trainings_made_before_are_found() -> None:
    """Where a training's bytes stay the same, list the file in `lary_trainer.same_bytes`; else say the new hash."""
    assert fingerprint(own_sources()) == "2872c8f57e7a4e1c333db352fe9a6aecc2f2075d8c09b7efffea1903c0f07330"


def test_the_table_holds_what_is_there_and_nothing_else() -> None:
    present = {file_sha256(path): path.name for path in PACKAGE.glob("*.py")}
    assert set(present) >= SAME_BYTES
    assert {present[sha256] for sha256 in SAME_BYTES} == set(FIRST)
    assert not SAME_BYTES & set(FIRST.values())


@pytest.mark.parametrize("name", sorted(path.name for path in PACKAGE.glob("*.py")))
def test_a_changed_file_makes_another_key_unless_it_is_listed(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "lary_trainer"
    shutil.copytree(PACKAGE, package, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(registry, "__file__", str(package / "registry.py"))
    before = own_sources()
    (package / name).write_bytes((package / name).read_bytes() + b"\n# a remark\n")
    changed = {key for key, sha256 in own_sources().items() if sha256 != before[key]}
    assert changed == {name} - {"__main__.py", "same_bytes.py"}
    if changed:
        first = {**FIRST, name: before[name]}
        monkeypatch.setattr(registry, "SAME_BYTES", SAME_BYTES | {file_sha256(package / name)})
        monkeypatch.setattr(registry, "FIRST", first)
        assert own_sources() == before
