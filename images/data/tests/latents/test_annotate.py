"""Labels written into trajectories and read back: LeRobot v3, npz, TFRecord; kills; what is refused."""

import hashlib
import json
import shutil
import struct
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from click.testing import Result
from lary_data import annotating, annotating_lerobot, annotating_tfrecord, tfrecords
from lary_schema.base import ContractError
from lary_schema.cards import DatasetCard, Latents
from lary_trainer.latents import read_latents
from numpy.typing import NDArray

from .conftest import PAIRS, Disk

DT, TOKENS, WIDTH, CODES = 3, 2, 4, 5
LENGTHS = (6, 5, 7, 2)
"""Steps of the episodes; the last one has no pair."""
FAILED = 4
CARD = PAIRS | {"group": {"column": "episode"}}
HEADER = ["dataset", "episode", "src_img", "tgt_img", "action"]


def _rows() -> list[list[str]]:
    return [
        ["CALVIN", str(e), *(f"images/ep_{e}/frame_{t + d:06d}.png" for d in (0, DT)), f"actions/{e}_{t}.npy"]
        for e, length in enumerate(LENGTHS) for t in range(length - DT)
    ]  # fmt: skip


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    """A set of pairs and its whole store, whose row FAILED has no latent."""
    card = DatasetCard.parse(CARD | {"splits": {"train": "val", "evaluate": []}}, "test")
    made = Disk(tmp_path, card, HEADER, _rows())
    made.write(made.csv, HEADER, made.rows)
    drawn = np.random.default_rng(0)
    tokens = drawn.normal(size=(len(made.rows), TOKENS, WIDTH)).astype(np.float32)
    indices = drawn.integers(CODES, size=(len(made.rows), TOKENS))
    indices[0, 0] = CODES - 1
    made.release(tokens, list(indices))
    folder = "calvin/val/dinov2"
    (made.old / folder / f"latent_action_{FAILED:08d}.npz").unlink()
    cells = [f"{folder}/latent_action_{row:08d}.npz" for row in range(len(made.rows))]
    made.la_csv([cell if row != FAILED else "" for row, cell in enumerate(cells)])
    brought = made.bring("--max-failed", "0.2")
    assert brought.exit_code == 0, brought.output
    assert [failure.row for failure in made.store().failures] == [FAILED]
    return made


def annotate(disk: Disk, into: str, out: Path, *options: str) -> Result:
    return disk.tool("annotate", "-d", "calvin", "-m", "dinov2", "--into", into, "--to", str(out), *options)


def lerobot(root: Path, **changes: Any) -> Path:
    """A v3 dataset of the episodes in two tables, with a file in place of a video."""
    features: dict[str, Any] = {"action": {"dtype": "float32", "shape": [2], "names": None}}
    info = {"codebase_version": "v3.0", "features": features, "fps": 10} | changes
    (root / "meta/episodes").mkdir(parents=True)
    (root / "meta/info.json").write_text(json.dumps(info))
    (root / "meta/stats.json").write_text("{}")
    (root / "videos/top").mkdir(parents=True)
    (root / "videos/top/file-000.mp4").write_bytes(b"frames")
    for number, episodes in enumerate(((0, 1), (2, 3))):
        at = [(e, t) for e in episodes for t in range(LENGTHS[e])]
        action = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(np.arange(2 * len(at), dtype=np.float32)), 2)
        table = pyarrow.table(
            {
                "action": action,
                "episode_index": pyarrow.array([e for e, _ in at]),
                "frame_index": pyarrow.array([t for _, t in at]),
                "note": pyarrow.array([None if t == 1 else f"{e}:{t}" for e, t in at]),
            }
        )
        known = {"info": {"features": {"action": {"length": 2, "_type": "Sequence"}}}}
        path = root / f"data/chunk-000/file-{number:03d}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pyarrow.parquet.write_table(table.replace_schema_metadata({"huggingface": json.dumps(known)}), path)
    return root


def tables(root: Path) -> list[pyarrow.Table]:
    return [pyarrow.parquet.read_table(path) for path in sorted((root / "data").rglob("*.parquet"))]


def expected(disk: Disk, name: str) -> list[NDArray[Any]]:
    """Per episode: what the store holds at each step, 0 where there is none."""
    store = disk.store()
    found = [
        np.zeros((length, *shape)) for length in LENGTHS for shape in [{"z": (TOKENS, WIDTH)}.get(name, (TOKENS,))]
    ]
    for row, cells in enumerate(disk.rows):
        step = int(cells[2][-10:-4])
        if row != FAILED:
            one = np.array([row], np.int64)
            value = store.tokens(one) if name == "z" else store.indices(one)
            found[int(cells[1])][step] = value[0, 0]
    return found


def valid(episode: int) -> list[bool]:
    rows = _rows()
    return [
        any(int(c[1]) == episode and int(c[2][-10:-4]) == t and row != FAILED for row, c in enumerate(rows))
        for t in range(LENGTHS[episode])
    ]


def test_lerobot_round_trip(disk: Disk, tmp_path: Path) -> None:
    root, out = lerobot(tmp_path / "robot"), tmp_path / "labelled"
    done = annotate(disk, "lerobot", out, "--from", str(root), "--dt", str(DT))
    assert done.exit_code == 0, done.output
    assert "4 episodes, 20 steps: 8 have a label; of the others 11 lie at an episode's end, 1 failed" in done.output
    assert "1 episodes are shorter than a pair" in done.output
    merged = pyarrow.concat_tables([t.replace_schema_metadata(None) for t in tables(out)])
    before = pyarrow.concat_tables([t.replace_schema_metadata(None) for t in tables(root)])
    assert merged.select(before.column_names).equals(before)
    assert merged.schema.field("action").type == before.schema.field("action").type
    indices = np.stack(merged["latent_idx"].to_numpy(zero_copy_only=False))
    assert indices.dtype == np.int64
    assert (indices == np.concatenate(expected(disk, "idx"))).all()
    vectors = np.stack(merged["latent_z"].to_numpy(zero_copy_only=False)).reshape(-1, TOKENS, WIDTH)
    assert vectors.dtype == np.float32
    assert (vectors == np.concatenate(expected(disk, "z"))).all()
    assert merged["latent_valid"].to_pylist() == [flag for e in range(4) for flag in valid(e)]
    assert set(merged["latent_dt"].to_pylist()) == {DT}
    (model,) = set(merged["latent_model"].to_pylist())
    info = json.loads((out / "meta/info.json").read_text())
    assert info["features"]["latent_z"] == {"dtype": "float32", "shape": [TOKENS * WIDTH], "names": None}
    said = json.loads((out / "meta/latents.json").read_text())
    assert (said["model"], said["codes"], said["valid"], said["failed"]) == (model, CODES, 8, 1)
    video = out / "videos/top/file-000.mp4"
    assert video.samefile(root / "videos/top/file-000.mp4"), "linked, not copied"
    known = json.loads(tables(out)[0].schema.metadata[b"huggingface"])["info"]["features"]
    assert set(known) == {"action", *("latent_idx", "latent_z", "latent_valid", "latent_dt", "latent_model")}


def test_columns_that_are_there(disk: Disk, tmp_path: Path) -> None:
    root = lerobot(tmp_path / "robot")
    assert annotate(disk, "lerobot", tmp_path / "once", "--from", str(root)).exit_code == 0
    refused = annotate(disk, "lerobot", tmp_path / "twice", "--from", str(tmp_path / "once"))
    assert isinstance(refused.exception, ContractError)
    assert "latent_idx, latent_z" in str(refused.exception)
    assert "--replace" in str(refused.exception)
    again = annotate(disk, "lerobot", tmp_path / "twice", "--from", str(tmp_path / "once"), "--replace")
    assert again.exit_code == 0, again.output
    assert [t.equals(o) for t, o in zip(tables(tmp_path / "once"), tables(tmp_path / "twice"), strict=True)] == [
        True
    ] * 2
    # What it notes of its own work is not the source's: the same command goes on.
    notes = (tmp_path / "twice" / annotating.SETTINGS).read_text()
    assert str(tmp_path / "once") in notes
    resumed = annotate(disk, "lerobot", tmp_path / "twice", "--from", str(tmp_path / "once"), "--replace")
    assert resumed.exit_code == 0, resumed.output


def test_npz_is_what_dataset_cards_read(disk: Disk, tmp_path: Path) -> None:
    out = tmp_path / "labels"
    done = annotate(disk, "npz", out, "--codes", "16")
    assert done.exit_code == 0, done.output
    said = json.loads((out / "latents.json").read_text())
    sizes = {name: said[name] for name in ("dt", "tokens", "width", "codes", "model")}
    card = Latents.model_validate({"folder": "labels/{split}", "column": "episode", "steps": 2} | sizes)
    found = read_latents(card, out / "val", [("0", 0), ("1", 1)], ["latent_idx", "latent_z"])
    assert found["latent_valid"].tolist() == [valid(0)[:2], valid(1)[1:3]]
    assert (found["latent_idx"][0] == expected(disk, "idx")[0][:2]).all()
    assert np.allclose(found["latent_z"][0], expected(disk, "z")[0][:2], atol=1e-5)
    assert sorted(path.name for path in (out / "val").iterdir()) == ["0.npz", "1.npz", "2.npz"]


# --- TFRecord -----------------------------------------------------------------------------------


def shards(root: Path, lengths: tuple[int, ...] = LENGTHS) -> Path:
    root.mkdir()
    (root / "features.json").write_text('{"features": 1}')
    for shard, episodes in enumerate((lengths[:3], lengths[3:])):
        with (root / f"set-train.tfrecord-{shard:05d}-of-00002").open("wb") as file:
            for length in episodes:
                entries = {
                    "steps/is_first": tfrecords.make_entry("steps/is_first", np.arange(length) == 0),
                    "steps/action": tfrecords.make_entry("steps/action", np.arange(2 * length, dtype=np.float32)),
                    "steps/reward": tfrecords.make_entry("steps/reward", np.zeros(length, np.float32)),
                }
                tfrecords.write_record(file, tfrecords.make_example(entries))
    return root


def records(root: Path) -> list[dict[str, bytes]]:
    files = sorted(path for path in root.iterdir() if ".tfrecord" in path.name)
    return [tfrecords.feature_entries(record, "test") for file in files for record in tfrecords.read_records(file)]


def test_tfrecord_round_trip(disk: Disk, tmp_path: Path) -> None:
    root, out = shards(tmp_path / "rlds"), tmp_path / "labelled"
    done = annotate(disk, "tfrecord", out, "--layout", "p2t", "--from", str(root))
    assert done.exit_code == 0, done.output
    assert (out / "features.json").read_bytes() == (root / "features.json").read_bytes()
    for number, (old, new) in enumerate(zip(records(root), records(out), strict=True)):
        assert {name: new[name] for name in old} == old, "other features are bit for bit the same"
        vectors = expected(disk, "z")[number].astype(np.float32)
        indices, flags = expected(disk, "idx")[number].astype(np.int64), np.array(valid(number))
        for name, values in (("latent_idx", indices), ("latent_z", vectors), ("latent_valid", flags)):
            assert new[f"steps/{name}"] == tfrecords.make_entry(f"steps/{name}", values), name
            assert tfrecords.count_values(new[f"steps/{name}"], "test") == values.size
    refused = annotate(disk, "tfrecord", tmp_path / "twice", "--from", str(out))
    assert "has steps/latent_idx" in str(refused.exception)
    assert annotate(disk, "tfrecord", tmp_path / "twice", "--from", str(out), "--replace").exit_code == 0
    assert records(tmp_path / "twice") == records(out)


def test_every_flipped_or_missing_byte_of_a_shard_is_noticed(tmp_path: Path) -> None:
    path = sorted(shards(tmp_path / "rlds").glob("*.tfrecord*"))[1]
    content = path.read_bytes()
    for at in range(len(content)):
        path.write_bytes(content[:at] + bytes([content[at] ^ 0x10]) + content[at + 1 :])
        with pytest.raises(ContractError, match=r"checksum|cut off"):
            list(tfrecords.read_records(path))
    for stop in range(1, len(content)):
        path.write_bytes(content[:stop])
        with pytest.raises(ContractError, match="cut off"):
            list(tfrecords.read_records(path))


def test_checksums_and_numbers_are_those_of_the_format() -> None:
    """The vector of RFC 3720 (32 zeros), and a record as the format's description lays it out."""
    assert tfrecords.google_crc32c.value(bytes(32)) == 0x8A9136AA
    assert tfrecords.masked_crc32c(bytes(32)) == ((0x8A9136AA >> 15 | 0x8A9136AA << 17) + 0xA282EAD8) & 0xFFFFFFFF
    entry = tfrecords.make_entry("a", np.array([300, -1]))
    packed = b"\xac\x02" + b"\xff" * 9 + b"\x01"
    feature = b"\x1a" + bytes([len(packed) + 2]) + b"\x0a" + bytes([len(packed)]) + packed
    assert entry == b"\x0a" + bytes([len(feature) + 5]) + b"\x0a\x01a\x12" + bytes([len(feature)]) + feature
    unpacked = b"\x12\x0a" + b"\x0d" + struct.pack("<f", 1.5) + b"\x0d" + struct.pack("<f", 2.5)
    loose = b"\x0a\x01b\x12" + bytes([len(unpacked)]) + unpacked
    assert tfrecords.count_values(b"\x0a" + bytes([len(loose)]) + loose, "test") == 2


def test_tensorflow_reads_the_shards(disk: Disk, tmp_path: Path) -> None:
    tensorflow = pytest.importorskip("tensorflow", reason="TensorFlow is not installed")
    assert annotate(disk, "tfrecord", tmp_path / "out", "--from", str(shards(tmp_path / "rlds"))).exit_code == 0
    files = sorted(str(path) for path in (tmp_path / "out").glob("*.tfrecord*"))
    first = next(iter(tensorflow.data.TFRecordDataset(files)))
    example = tensorflow.train.Example.FromString(first.numpy())
    indices = example.features.feature["steps/latent_idx"].int64_list.value
    assert list(indices) == expected(disk, "idx")[0].astype(int).ravel().tolist()


# --- kills --------------------------------------------------------------------------------------


class KilledError(BaseException):
    """Ends a run where it stands, as a signal does."""


def _hashes(root: Path) -> dict[str, str]:
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file() and path.name != annotating.LOG
    }


@pytest.mark.parametrize("into", ["lerobot", "npz", "tfrecord"])
def test_killed_at_any_write_it_ends_in_the_same_bytes(
    disk: Disk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, into: str
) -> None:
    source = {"lerobot": lerobot, "tfrecord": shards}.get(into, lambda path: path)(tmp_path / "source")
    options = [] if into == "npz" else ["--from", str(source)]
    check_kills(lambda out: annotate(disk, into, out, *options), tmp_path, monkeypatch, "latents.json")


def check_kills(run: Callable[[Path], Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, last: str) -> None:
    """Killed at each write, then run to its end, a folder is that of an undisturbed run; `last` is its last file."""
    assert run(tmp_path / "whole").exit_code == 0
    whole = _hashes(tmp_path / "whole")
    kills = 0
    for allowed in range(10):
        out = tmp_path / f"killed{allowed}"
        for _ in range(1 + (allowed == 0)):  # the first one twice at one write
            _kill_after(monkeypatch, allowed)
            try:
                assert run(out).exit_code == 0
            except KilledError:
                kills += 1
                assert not list(out.rglob(last))
            finally:
                monkeypatch.undo()
        assert run(out).exit_code == 0
        assert _hashes(out) == whole, allowed
        if kills <= allowed + 1:
            break
    assert kills >= 4


def _kill_after(monkeypatch: pytest.MonkeyPatch, allowed: int) -> None:
    """Each write of a file is one; the one after `allowed` ends with its draft half done."""
    real, left = annotating.replacing, [allowed]

    def counted(path: Path, **options: Any) -> Any:
        if left[0] == 0:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.with_name(f"{path.name}.0{annotating.PARTIAL_SUFFIX}").write_bytes(b"half")
            raise KilledError
        left[0] -= 1
        return real(path, **options)

    for module in (annotating, annotating_lerobot, annotating_tfrecord):
        monkeypatch.setattr(module, "replacing", counted)


# --- what is refused ------------------------------------------------------------------------------


def _other_csv(disk: Disk, root: Path) -> None:
    disk.write(disk.csv, HEADER, disk.rows[:-1])


def _version_two(disk: Disk, root: Path) -> None:
    info = json.loads((root / "meta/info.json").read_text())
    (root / "meta/info.json").write_text(json.dumps(info | {"codebase_version": "v2.1"}))


def _shorter(disk: Disk, root: Path) -> None:
    path = root / "data/chunk-000/file-000.parquet"
    pyarrow.parquet.write_table(pyarrow.parquet.read_table(path).slice(0, 4), path)


def _no_table(disk: Disk, root: Path) -> None:
    (root / "data/chunk-000/file-001.parquet").write_bytes(b"PAR1")


@pytest.mark.parametrize(
    ("change", "options", "says"),
    [
        (_other_csv, [], "no store of"),
        (_version_two, [], "convert_dataset_v21_to_v30"),
        (_shorter, [], "episode 0: has 4 steps, row 1 has a pair of steps 1 and 4"),
        (_no_table, [], "no table"),
        (None, ["--dt", "4"], "are 3 steps apart, asked for is 4"),
        (None, ["--codes", "3"], "has code number 4, and --codes says 3"),
        (None, ["--step", "action"], "no step is found"),
        (None, ["--variant", "other"], "no store of"),
    ],
)
def test_refused(
    disk: Disk, tmp_path: Path, change: Callable[[Disk, Path], None] | None, options: list[str], says: str
) -> None:
    root = lerobot(tmp_path / "robot")
    if change is not None:
        change(disk, root)
    done = annotate(disk, "lerobot", tmp_path / "out", "--from", str(root), *options)
    message = f"{done.output} {done.exception}"
    assert done.exit_code != 0
    assert says in message
    assert not list((tmp_path / "out").rglob("latents.json")), "what is not whole does not pass for it"


def test_folders_that_are_not_written_into(disk: Disk, tmp_path: Path) -> None:
    root = lerobot(tmp_path / "robot")
    assert "the dataset itself" in str(annotate(disk, "lerobot", root, "--from", str(root)).exception)
    (tmp_path / "full").mkdir()
    (tmp_path / "full/mine").write_text("")
    assert "not made by this tool" in str(annotate(disk, "npz", tmp_path / "full").exception)
    assert annotate(disk, "npz", tmp_path / "labels").exit_code == 0
    other = annotate(disk, "npz", tmp_path / "labels", "--codes", "16")
    assert "labels made otherwise" in str(other.exception)
    assert annotate(disk, "npz", tmp_path / "labels", "--from", str(root)).exit_code == 2
    assert annotate(disk, "lerobot", tmp_path / "elsewhere").exit_code == 2


def test_a_model_without_codes(disk: Disk, tmp_path: Path) -> None:
    shutil.rmtree(disk.latents)
    disk.release(np.ones((len(disk.rows), TOKENS, WIDTH), np.float32))
    assert disk.bring().exit_code == 0
    assert "no code numbers" in str(annotate(disk, "npz", tmp_path / "labels").exception)


def test_a_folder_that_a_stopped_machine_left_is_taken(
    disk: Disk, tmp_path: Path, stopped_at_every_change: Callable[[Callable[[], object]], Iterator[int]]
) -> None:
    """The first changes claim it; what is done after those is kept in a log (above)."""
    assert annotate(disk, "npz", tmp_path / "whole").exit_code == 0
    whole = {path.name for path in (tmp_path / "whole").rglob("*")}
    for _ in islice(stopped_at_every_change(lambda: annotate(disk, "npz", tmp_path / "out")), 8):
        again = annotate(disk, "npz", tmp_path / "out")
        assert again.exit_code == 0, again.exception
        assert {path.name for path in (tmp_path / "out").rglob("*")} == whole
        shutil.rmtree(tmp_path / "out")
