"""Results as a zip file: out, in again, merged; and files that are none."""

import io
import json
import os
import random
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from lary_orch.workspace import Workspace
from lary_results import leaderboard
from lary_results.archive import INDEX, export, import_results
from lary_results.files import IMPORT_FILE, read_results
from lary_results.parts import RESULT
from lary_results.scores import collect, newest
from lary_schema.atomic import publish_bytes
from lary_schema.base import ContractError, file_sha256


@pytest.fixture
def write_result(write: Callable[..., Path], workspace: Workspace) -> Callable[..., Path]:
    """Put a result below a folder of the caller's."""

    def written(root: Path, *arguments: Any, **fields: Any) -> Path:
        folder = write(*arguments, **fields)
        target = root / folder.relative_to(workspace.results)
        target.parent.mkdir(parents=True, exist_ok=True)
        folder.rename(target)
        return target / "result.json"

    return written


@pytest.fixture
def theirs(tmp_path: Path, write_result: Callable[..., Path]) -> Path:
    """Results of two runs with files beside them, of somebody else."""
    root = tmp_path / "theirs"
    for run, model, value in (("a-1", "lam", 0.7), ("a-1", "other", 0.4), ("b-2", "lam", 0.6)):
        path = write_result(root, model, "calvin", {"val": value}, run=run)
        (path.parent / "plots").mkdir()
        (path.parent / "plots/matrix.png").write_bytes(b"png" * 50)
        publish_bytes(path.parent / "eval_vis/val/sample_0.png", b"pixels")
        (path.parent / "probe.safetensors").write_bytes(b"weights")
    return root


@pytest.fixture
def packed(theirs: Path, tmp_path: Path) -> Path:
    file = tmp_path / "théir results.zip"
    assert export(theirs, "*", None, file) == {RESULT: 3}
    return file


def table(results: Path) -> str:
    out = io.StringIO()
    leaderboard.show_all(collect(read_results(results)), out)
    return out.getvalue()


def test_there_and_back(packed: Path, theirs: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    made = import_results(packed, mine)
    assert (made.counts, made.is_new) == ({RESULT: 3}, True)
    theirs_by_key, mine_by_key = (
        {(r.run, r.model): (r, path) for path, r in read_results(root)} for root in (theirs, mine)
    )
    assert {key: found[0] for key, found in mine_by_key.items()} == {k: found[0] for k, found in theirs_by_key.items()}
    for key, (_, path) in mine_by_key.items():
        assert (path.parent / "plots/matrix.png").read_bytes() == b"png" * 50
        assert (path.parent / "eval_vis/val/sample_0.png").read_bytes() == b"pixels"
        assert not (path.parent / "probe.safetensors").exists()
        assert path.stat().st_mtime == pytest.approx(theirs_by_key[key][1].stat().st_mtime)
    before = sorted(mine.rglob("*"))
    assert import_results(packed, mine) == made._replace(is_new=False)
    assert sorted(mine.rglob("*")) == before
    assert {path.name for path in tmp_path.iterdir()} == {"theirs", "mine", "ws", packed.name}, "no draft is left"


def test_imported_scores_are_marked(packed: Path, tmp_path: Path) -> None:
    import_results(packed, tmp_path / "mine")
    text = table(tmp_path / "mine")
    assert text.count("°\n") == 2
    assert "° imported from théir results.zip, made elsewhere: lam, other" in text


def test_ours_goes_before_theirs_however_old(packed: Path, tmp_path: Path, write_result: Callable[..., Path]) -> None:
    mine = tmp_path / "mine"
    path = write_result(mine, "lam", "calvin", {"val": 0.1}, run="a-1")
    os.utime(path, (1e9, 1e9))
    import_results(packed, mine)
    kept = {score.model: (score.value, score.imported) for score in newest(collect(read_results(mine)))}
    assert kept == {"lam": (0.1, None), "other": (0.4, packed.name)}
    assert path.is_file()


def test_what_was_imported_is_not_exported_again(packed: Path, tmp_path: Path) -> None:
    import_results(packed, tmp_path / "mine")
    with pytest.raises(ContractError, match="nothing to export"):
        export(tmp_path / "mine", "*", None, tmp_path / "again.zip")


def test_one_run_and_no_file_is_overwritten(theirs: Path, tmp_path: Path) -> None:
    file = tmp_path / "b.zip"
    assert export(theirs, "b-2", None, file) == {RESULT: 1}
    with zipfile.ZipFile(file) as archive:
        assert {name.split("/")[0] for name in archive.namelist()} == {INDEX, "b-2"}
    with pytest.raises(ContractError, match="is there already"):
        export(theirs, "*", None, file)
    with pytest.raises(ContractError, match="nothing to export"):
        export(theirs, "*", "clean", tmp_path / "c.zip")


# --- files that are none ----------------------------------------------------------------------


def repacked(packed: Path, to: Path, change: Callable[[dict[str, bytes], dict[str, Any]], None]) -> Path:
    """The file again, its contents and index changed."""
    with zipfile.ZipFile(packed) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    index = json.loads(files.pop(INDEX))
    change(files, index)
    with zipfile.ZipFile(to, "w") as archive:
        archive.writestr(INDEX, json.dumps(index))
        for name, data in files.items():
            archive.writestr(name, data)
    return to


def refused(file: Path, results: Path) -> str:
    """What is said; nothing is left behind."""
    before = sorted(results.parent.rglob("*"))
    with pytest.raises(ContractError) as caught:
        import_results(file, results)
    left = [path for path in sorted(results.parent.rglob("*")) if path not in before and path != results]
    assert left == []
    return str(caught.value)


NAMES = [
    *("../out/x/y/z", "/etc/x/y/z/w", "a/../b/c/d", "a//b/c/d", "a/b/c", "a/b/c/d/e/f/g/h", "a\\b/c/d/e/f"),
    *("C:/a/b/c/d", "a/b/c/d/.hidden", "a/b/c/d/x.partial", "a/b/c/d/e\n", "./b/c/d/e", "a/b/c/d./e", "a/b/c/d/*"),
]


@pytest.mark.parametrize("name", NAMES)
def test_names_that_lead_elsewhere(name: str, packed: Path, tmp_path: Path) -> None:
    def change(files: dict[str, bytes], index: dict[str, Any]) -> None:
        first = next(iter(files))
        files[name], index["files"][name] = files[first], index["files"][first]

    assert "no name of a file of results" in refused(repacked(packed, tmp_path / "x.zip", change), tmp_path / "mine")


def _drop_index(files: dict[str, bytes], index: dict[str, Any]) -> None:
    index["files"].pop(next(iter(files)))


def _add_unnamed(files: dict[str, bytes], index: dict[str, Any]) -> None:
    files["a-1/m/d/p/more.txt"] = b"x"


def _other_bytes(files: dict[str, bytes], index: dict[str, Any]) -> None:
    name = next(name for name in files if name.endswith(".png"))
    files[name] = files[name][:-1] + b"X"


def _other_size(files: dict[str, bytes], index: dict[str, Any]) -> None:
    index["files"][next(iter(files))]["size"] += 1


def _no_result(files: dict[str, bytes], index: dict[str, Any]) -> None:
    for name in [name for name in files if name.startswith("b-2/") and name.endswith("result.json")]:
        del files[name], index["files"][name]


def _of_another(files: dict[str, bytes], index: dict[str, Any]) -> None:
    for name in [name for name in files if name.startswith("b-2/")]:
        new = name.replace("/lam/", "/famous/")
        files[new], index["files"][new] = files.pop(name), index["files"].pop(name)


def _no_version(files: dict[str, bytes], index: dict[str, Any]) -> None:
    index["version"] = 3


def _nothing(files: dict[str, bytes], index: dict[str, Any]) -> None:
    files.clear()
    index["files"].clear()


@pytest.mark.parametrize(
    "change",
    [_drop_index, _add_unnamed, _other_bytes, _other_size, _no_result, _of_another, _no_version, _nothing],
    ids=lambda change: change.__name__,
)
def test_an_index_that_does_not_fit(change: Callable[..., None], packed: Path, tmp_path: Path) -> None:
    assert "x.zip" in refused(repacked(packed, tmp_path / "x.zip", change), tmp_path / "mine")


def test_other_zip_files(tmp_path: Path, packed: Path) -> None:
    for name, text in (("empty.zip", b""), ("text.zip", b"not a zip"), ("cut.zip", packed.read_bytes()[:-30])):
        (tmp_path / name).write_bytes(text)
        assert "is no zip file of results" in refused(tmp_path / name, tmp_path / "mine")
    with zipfile.ZipFile(tmp_path / "strange.zip", "w") as archive:
        archive.writestr("readme.txt", "hello")
    assert f"has no {INDEX}" in refused(tmp_path / "strange.zip", tmp_path / "mine")
    assert "is no zip file of results" in refused(tmp_path / "absent.zip", tmp_path / "mine")


def test_damaged_bytes_are_never_taken_for_a_result(packed: Path, tmp_path: Path) -> None:
    """Any byte of the file may be another: it is refused, or what is imported has the hashes of the whole one."""
    data, whole = packed.read_bytes(), tmp_path / "whole"
    import_results(packed, whole)
    hashes = {file_sha256(path) for path in whole.rglob("*") if path.name != "import.json" and path.is_file()}
    draw, taken = random.Random(0), 0
    for nth in range(60):
        at = draw.randrange(len(data))
        file, mine = tmp_path / "bad.zip", tmp_path / f"r{nth}" / "results"
        file.write_bytes(data[:at] + bytes([data[at] ^ (1 << draw.randrange(8))]) + data[at + 1 :])
        try:
            import_results(file, mine)
        except ContractError:
            assert not mine.is_dir() or not list(mine.iterdir())
            continue
        taken += 1
        assert {file_sha256(p) for p in mine.rglob("*") if p.name != "import.json" and p.is_file()} == hashes
    assert taken < 40


# --- machines that stop, disks that refuse ----------------------------------------------------


@pytest.fixture
def small(theirs: Path, tmp_path: Path) -> Path:
    """One result."""
    export(theirs, "b-2", None, tmp_path / "small.zip")
    return tmp_path / "small.zip"


def test_an_import_is_whole_or_absent_wherever_the_machine_stops(
    small: Path, tmp_path: Path, stopped_at_every_change: Callable[..., Any]
) -> None:
    mine = tmp_path / "my workspace/results"
    for _ in stopped_at_every_change(lambda: import_results(small, mine)):
        assert list(read_results(mine)) == []
        assert [path for path in mine.glob("*") if not path.name.endswith(".partial")] == []
    assert len(list(read_results(mine))) == 1
    assert not import_results(small, mine).is_new


def test_what_was_removed_of_an_import_comes_back(
    small: Path, packed: Path, tmp_path: Path, stopped_at_every_change: Callable[..., Any]
) -> None:
    """`clean --results MODEL` takes a part. Stopped on the way, the old part, nothing or all of it is there."""
    mine, seen = tmp_path / "mine", set()
    folder = import_results(packed, mine).folder
    (folder / "lam").rename(tmp_path / "lost")
    assert len(list(read_results(mine))) == 1
    assert import_results(packed, mine).is_new
    assert len(list(read_results(mine))) == 3
    mine = tmp_path / "small"
    (import_results(small, mine).folder / IMPORT_FILE).unlink()
    for _ in stopped_at_every_change(lambda: import_results(small, mine)):
        seen.add(len(list(read_results(mine))))
    assert seen == {0, 1}
    assert len(list(read_results(mine))) == 1
    assert not import_results(small, mine).is_new


def test_an_archive_is_whole_or_absent_wherever_the_machine_stops(
    theirs: Path, tmp_path: Path, stopped_at_every_change: Callable[..., Any]
) -> None:
    file = tmp_path / "out.zip"
    for _ in stopped_at_every_change(lambda: export(theirs, "*", None, file)):
        if file.exists():
            assert import_results(file, tmp_path / "mine").counts == {RESULT: 3}
            file.unlink()
    assert import_results(file, tmp_path / "mine").counts == {RESULT: 3}


@pytest.mark.parametrize("where", ["a file", "no right", "a long name"])
def test_a_disk_that_refuses_is_named_and_not_the_archive(packed: Path, tmp_path: Path, where: str) -> None:
    mine = tmp_path / ("x" * 300 if where == "a long name" else "mine")
    if where == "a file":
        mine.write_text("")
    elif where == "no right":
        if os.geteuid() == 0:
            pytest.skip("root may write everywhere")
        mine.mkdir(mode=0o500)
    with pytest.raises(ContractError, match=r"cannot be written: .*; make room there or choose an") as caught:
        import_results(packed, mine)
    assert str(caught.value).startswith(str(mine))


def test_drafts_of_probes_are_left_out_and_strange_files_are_named(theirs: Path, tmp_path: Path) -> None:
    folder = next(path.parent for path, _ in read_results(theirs))
    (folder / "result.json.0123.partial").write_text("{")
    file = tmp_path / "a.zip"
    export(theirs, "*", None, file)
    assert import_results(file, tmp_path / "mine").counts == {RESULT: 3}
    (folder / "a:b").write_text("")
    with pytest.raises(ContractError, match="a:b: is no file that an import would take"):
        export(theirs, "*", None, tmp_path / "b.zip")


def test_files_from_before_1980(theirs: Path, tmp_path: Path) -> None:
    path = next(path for path, _ in read_results(theirs))
    os.utime(path, (1000, 1000))
    export(theirs, "*", None, tmp_path / "a.zip")
    import_results(tmp_path / "a.zip", tmp_path / "mine")
    assert 1000 in {path.stat().st_mtime for path, _ in read_results(tmp_path / "mine")}
