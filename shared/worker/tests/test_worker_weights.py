"""A job's checkpoints are the planned bytes, or it ends with exit code 4."""

from pathlib import Path
from typing import Any

import pytest
from lary_schema.base import ExitCode, WeightsError, path_sha256
from lary_schema.cards import WeightSpec
from lary_schema.jobs import WeightFile
from lary_worker.weights import find_weights


@pytest.fixture
def folder(bench: Any) -> Path:
    """A hub folder and a file under the weights mount."""
    root: Path = bench.root / "weights"
    (root / "hub" / "sub").mkdir(parents=True)
    (root / "hub" / "config.json").write_text("{}")
    (root / "hub" / "sub" / "model.safetensors").write_bytes(b"\x08" * 100)
    (root / "one.pt").write_bytes(b"\x07" * 100)
    return root


def job_with(bench: Any, media: Any, files: list[WeightFile]) -> Any:
    bench.clips(media.colours[:1])
    return bench.job().model_copy(update={"weights": tuple(files)})


def find(bench: Any, media: Any, *paths: str) -> Any:
    root = bench.root / "weights"
    files = [WeightFile(name=f"w{at}", path=p, sha256=path_sha256(root / p)) for at, p in enumerate(paths)]
    specs = tuple(WeightSpec(name=f.name, path=f.path, license="MIT") for f in files)
    card = bench.card.card("mean").model_copy(update={"weights": specs})
    said: list[str] = []
    job = job_with(bench, media, files)
    return lambda: find_weights(job, card, root, said.append)


def test_files_and_folders_are_found(bench: Any, media: Any, folder: Path) -> None:
    assert find(bench, media, "one.pt", "hub")() == {"w0": folder / "one.pt", "w1": folder / "hub"}


@pytest.mark.parametrize("path", ["one.pt", "hub"])
def test_other_bytes(bench: Any, media: Any, folder: Path, path: str) -> None:
    again = find(bench, media, path)
    changed = folder / ("one.pt" if path == "one.pt" else "hub/sub/model.safetensors")
    changed.write_bytes(b"\x09" * 100)
    with pytest.raises(WeightsError, match=rf"{path}: weights 'w0' have sha256 .*, planned was"):
        again()


def test_a_folder_with_another_file(bench: Any, media: Any, folder: Path) -> None:
    again = find(bench, media, "hub")
    (folder / "hub" / ".cache").mkdir()
    (folder / "hub" / ".cache" / "lock").write_text("a download tool's own")
    again()
    (folder / "hub" / "config2.json").write_text("{}")
    with pytest.raises(WeightsError, match="planned was"):
        again()


def test_missing(bench: Any, media: Any, folder: Path) -> None:
    again = find(bench, media, "one.pt")
    (folder / "one.pt").unlink()
    with pytest.raises(WeightsError, match=r"one.pt: weights 'w0' are missing; `lary-orch weights ls`"):
        again()


@pytest.mark.parametrize("pointer", ["one.pt", "hub/sub/model.safetensors"])
def test_a_pointer_instead_of_the_file(bench: Any, media: Any, folder: Path, pointer: str) -> None:
    again = find(bench, media, "one.pt", "hub")
    (folder / pointer).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(WeightsError, match=rf"{pointer}: is a Git LFS pointer"):
        again()


def test_a_job_that_names_others_than_the_card(bench: Any, media: Any, folder: Path) -> None:
    file = WeightFile(name="w", path="one.pt", sha256=path_sha256(folder / "one.pt"))
    bench.clips(media.colours[:1])
    done = bench.extract(bench.job(weights=(file,), values={"weights": {"w": file.sha256}}))
    assert done.code == ExitCode.WEIGHTS
    assert "needs weights [], the job names ['w']" in done.message


def test_an_optional_one_may_be_named_or_not(bench: Any, media: Any, folder: Path) -> None:
    optional = WeightSpec(name="extra", path="one.pt", license="MIT", optional=True)
    needed = WeightSpec(name="w", path="hub", license="MIT")
    card = bench.card.card("mean").model_copy(update={"weights": (needed, optional)})
    root = bench.root / "weights"
    both = [WeightFile(name=s.name, path=s.path, sha256=path_sha256(root / s.path)) for s in card.weights]
    for files, names in ((both, {"w", "extra"}), (both[:1], {"w"})):
        assert find_weights(job_with(bench, media, files), card, root, print).keys() == names
    with pytest.raises(WeightsError, match=r"needs weights \['w'\], the job names \['extra'\]"):
        find_weights(job_with(bench, media, both[1:]), card, root, print)
