"""Codes of action chunks written into trajectories: LeRobot v3, npz, TFRecord; kills; what is refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from click.testing import Result
from lary_data import annotating, tfrecords
from lary_schema.base import file_sha256
from lary_schema.cards import DatasetCard, ModelCard
from lary_schema.jobs import MetadataFile, Source
from lary_schema.store.layout import Failure, Provenance, Status
from lary_schema.store.writer import LatentWriter
from lary_schema.values import ExtractionSettings, make_values, new_layout
from numpy.typing import NDArray

from .conftest import ACTIONS, PAIRS, Disk
from .test_annotate import HEADER, LENGTHS, check_kills, lerobot, records, shards, tables

STEPS, CODES, FAILED, WIDTH = 3, 7, 2, 2
CARD = PAIRS | {"group": {"column": "episode"}, "actions": ACTIONS | {"stride": STEPS}}
NAMES = ["action_token", "action_token_valid", "action_token_model"]


def _rows() -> list[list[str]]:
    """A chunk begins at each step but the last; those that pass the end were padded by whoever made them."""
    return [
        ["CALVIN", str(e), *(f"images/ep_{e}/frame_{s:06d}.png" for s in (t, min(t + STEPS, length - 1))), f"a{t}.npy"]
        for e, length in enumerate(LENGTHS) for t in range(length - 1)
    ]  # fmt: skip


def codes_of(rows: int, steps: int = STEPS) -> NDArray[np.int64]:
    found = np.random.default_rng(1).integers(CODES, size=(rows, steps, 1))
    found[0] = CODES - 1
    return found


def write_store(disk: Disk, variant: str = "codebook", mode: str = "actions") -> None:
    """A finished store of codes over actions, whose row FAILED has none."""
    card = disk.card
    assert card.actions is not None
    steps = card.actions.stride
    spec = {mode: {"input": {"shape": [steps, 1]}, "tokens": [steps, 1, WIDTH], "indices": [steps, 1]}}
    model = ModelCard.parse(
        {
            "key": "tokenizer", "title": "t", "paradigm": "baseline", "modes": spec, "variants": [variant],
            "preprocessing": "actions", "revision": 1, "license": "MIT", "source": "test", "code_sha256": "c" * 64,
        },
        "card",
    )  # fmt: skip
    metadata = MetadataFile(path="m.csv", sha256=file_sha256(disk.csv), rows=len(disk.rows))
    source = Source(metadata=metadata, columns=card.columns, media=".", frames=card.frames)
    actions = card.actions if mode == "actions" else None
    values = make_values(model, "tokenizer", variant, "calvin", "val", source, {}, ExtractionSettings(), actions)
    layout, rows = new_layout(values, len(disk.rows)), len(disk.rows)
    provenance = Provenance(
        layout=layout, values=values, image="t", image_digest=None, code_revision=None, libraries={}
    )
    tokens, indices = np.zeros((rows, steps, 1, WIDTH), np.float16), codes_of(rows, steps)
    status, failures = np.full(rows, Status.OK, np.uint8), []
    if rows > FAILED:
        tokens[FAILED], indices[FAILED], status[FAILED] = np.nan, -1, Status.FAILED
        failures = [Failure(row=FAILED, reason="decode_error", detail="no actions")]
    writer = LatentWriter.open(disk.latents / layout.path, provenance)
    with writer.claim(0):
        writer.write(0, tokens, indices, status, failures=failures, clamped=(), batch_size=1, device="cpu")
    writer.close()


def made(root: Path, card: dict[str, Any] = CARD, rows: list[list[str]] | None = None) -> Disk:
    parsed = DatasetCard.parse(card | {"splits": {"train": "val", "evaluate": []}}, "test")
    disk = Disk(root, parsed, HEADER, _rows() if rows is None else rows)
    disk.write(disk.csv, HEADER, disk.rows)
    return disk


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    found = made(tmp_path)
    write_store(found)
    return found


def tokenize(disk: Disk, into: str, out: Path, *options: str) -> Result:
    return disk.tool("tokenize-actions", "-d", "calvin", "-m", "tokenizer", "--into", into, "--to", str(out), *options)


def expected() -> tuple[list[NDArray[np.int64]], list[list[bool]]]:
    """Per episode: the codes at each step, 0 where there are none, and whether there are."""
    codes, row = codes_of(len(_rows())), 0
    tokens, valid = [], []
    for length in LENGTHS:
        at, flags = np.zeros((length, STEPS), np.int64), [False] * length
        for t in range(length - 1):
            if t + STEPS <= length and row != FAILED:
                at[t], flags[t] = codes[row, :, 0], True
            row += 1
        tokens.append(at)
        valid.append(flags)
    return tokens, valid


COUNTED = "4 episodes, 20 steps: 11 have a label; of the others 8 lie at an episode's end, 1 failed in extraction, and"


def test_lerobot_round_trip(disk: Disk, tmp_path: Path) -> None:
    root, out = lerobot(tmp_path / "robot"), tmp_path / "tokens"
    done = tokenize(disk, "lerobot", out, "--from", str(root))
    assert done.exit_code == 0, done.output
    assert COUNTED in done.output
    assert "at 0 no chunk begins" in done.output
    found = pyarrow.concat_tables([table.replace_schema_metadata(None) for table in tables(out)])
    before = pyarrow.concat_tables([table.replace_schema_metadata(None) for table in tables(root)])
    assert found.select(before.column_names).equals(before)
    assert found.column_names == [*before.column_names, *NAMES]
    tokens, valid = expected()
    assert (np.stack(found["action_token"].to_numpy(zero_copy_only=False)) == np.concatenate(tokens)).all()
    assert found["action_token_valid"].to_pylist() == [flag for flags in valid for flag in flags]
    (model,) = set(found["action_token_model"].to_pylist())
    said = json.loads((out / "meta/action_tokens.json").read_text())
    facts = {"model": model, "key": "tokenizer", "variant": "codebook", "tokens": STEPS, "codes": CODES}
    assert said == facts | {"episodes": 4, "steps": 20, "valid": 11, "failed": 1}
    features = json.loads((out / "meta/info.json").read_text())["features"]
    assert features["action_token"] == {"dtype": "int64", "shape": [STEPS], "names": None}
    assert (out / "videos/top/file-000.mp4").samefile(root / "videos/top/file-000.mp4")


def test_columns_that_are_there(disk: Disk, tmp_path: Path) -> None:
    """Also after `annotate`, whose columns and facts stay."""
    root = lerobot(tmp_path / "robot")
    (root / "meta/latents.json").write_text("{}")
    (root / annotating.SETTINGS).write_text("another tool's note")
    assert tokenize(disk, "lerobot", tmp_path / "once", "--from", str(root)).exit_code == 0
    assert (tmp_path / "once/meta/latents.json").is_file()
    assert "another" not in (tmp_path / "once" / annotating.SETTINGS).read_text()
    refused = tokenize(disk, "lerobot", tmp_path / "twice", "--from", str(tmp_path / "once"))
    assert "action_token, action_token_valid, action_token_model already" in str(refused.exception)
    again = tokenize(disk, "lerobot", tmp_path / "twice", "--from", str(tmp_path / "once"), "--replace")
    assert again.exit_code == 0, again.output
    pairs = zip(tables(tmp_path / "once"), tables(tmp_path / "twice"), strict=True)
    assert all(one.equals(other) for one, other in pairs)


def test_npz_and_tfrecord(disk: Disk, tmp_path: Path) -> None:
    tokens, valid = expected()
    assert tokenize(disk, "npz", tmp_path / "npz").exit_code == 0
    for episode in range(len(LENGTHS)):
        with np.load(tmp_path / f"npz/val/{episode}.npz") as file:
            assert set(file) == set(NAMES)
            assert file["action_token_valid"].tolist() == valid[episode]
            assert (file["action_token"] == tokens[episode]).all()
    root, out = shards(tmp_path / "rlds"), tmp_path / "out"
    done = tokenize(disk, "tfrecord", out, "--from", str(root))
    assert done.exit_code == 0, done.output
    assert COUNTED in done.output
    for number, (old, new) in enumerate(zip(records(root), records(out), strict=True)):
        assert {name: new[name] for name in old} == old
        for name, values in (("action_token", tokens[number]), ("action_token_valid", np.array(valid[number]))):
            assert new[f"steps/{name}"] == tfrecords.make_entry(f"steps/{name}", values)
    assert "has steps/action_token, steps/" in str(
        tokenize(disk, "tfrecord", tmp_path / "x", "--from", str(out)).exception
    )


@pytest.mark.parametrize("into", ["lerobot", "npz", "tfrecord"])
def test_killed_at_any_write_it_ends_in_the_same_bytes(
    disk: Disk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, into: str
) -> None:
    source = {"lerobot": lerobot, "tfrecord": shards}.get(into, lambda path: path)(tmp_path / "source")
    options = [] if into == "npz" else ["--from", str(source)]
    check_kills(lambda out: tokenize(disk, into, out, *options), tmp_path, monkeypatch, "action_tokens.json")


def test_steps_from_a_column_of_a_set_of_clips(tmp_path: Path) -> None:
    header = ["video_path", "sample_indices", "episode", "start", "action"]
    card = CARD | {"columns": {"input": "video"}}
    parsed = DatasetCard.parse(card | {"splits": {"train": "val", "evaluate": []}}, "test")
    disk = Disk(tmp_path, parsed, header, [["a.mp4", "0", "ep 0", str(2 * row), f"{row}.npy"] for row in range(2)])
    disk.write(disk.csv, header, disk.rows)
    write_store(disk)
    assert "--step" in str(tokenize(disk, "npz", tmp_path / "none").exception)
    assert tokenize(disk, "npz", tmp_path / "out", "--step", "start").exit_code == 0
    with np.load(tmp_path / "out/val/ep 0.npz") as file:
        assert file["action_token_valid"].tolist() == [True, False, True, False, False]
        assert (file["action_token"][[0, 2]] == codes_of(2)[..., 0]).all()


def test_one_step_is_a_plain_column(tmp_path: Path) -> None:
    """As the format has features of shape [1]."""
    disk = made(tmp_path, CARD | {"actions": ACTIONS | {"stride": 1}})
    write_store(disk)
    root = lerobot(tmp_path / "robot")
    assert tokenize(disk, "lerobot", tmp_path / "out", "--from", str(root)).exit_code == 0
    found = pyarrow.concat_tables([table.replace_schema_metadata(None) for table in tables(tmp_path / "out")])
    assert found.schema.field("action_token").type == pyarrow.int64()
    codes = codes_of(len(disk.rows), 1)[: LENGTHS[0], 0, 0]
    codes[[FAILED, -1]] = 0
    assert found["action_token"].to_pylist()[: LENGTHS[0]] == codes.tolist()


# --- what is refused ------------------------------------------------------------------------------


def _other_csv(disk: Disk, root: Path) -> None:
    disk.write(disk.csv, HEADER, disk.rows[:-1])


def _version_two(disk: Disk, root: Path) -> None:
    info = json.loads((root / "meta/info.json").read_text())
    (root / "meta/info.json").write_text(json.dumps(info | {"codebase_version": "v2.1"}))


def _shorter(disk: Disk, root: Path) -> None:
    path = root / "data/chunk-000/file-000.parquet"
    pyarrow.parquet.write_table(pyarrow.parquet.read_table(path).slice(0, 3), path)


@pytest.mark.parametrize(
    ("change", "options", "says"),
    [
        (_other_csv, [], "no store of"),
        (_version_two, [], "convert_dataset_v21_to_v30"),
        (_shorter, [], "episode 0: has 3 steps, row 3 begins at step 3"),
        (None, ["--codes", "3"], "has code number 6, and --codes says 3"),
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
    done = tokenize(disk, "lerobot", tmp_path / "out", "--from", str(root), *options)
    assert done.exit_code != 0
    assert says in f"{done.output} {done.exception}"
    assert not list((tmp_path / "out").rglob("action_tokens.json"))


def test_stores_of_frames_and_several_stores(disk: Disk, tmp_path: Path) -> None:
    write_store(disk, variant="onehot")
    assert "several stores" in str(tokenize(disk, "npz", tmp_path / "out").exception)
    one, other = tmp_path / "one", tmp_path / "other"
    assert tokenize(disk, "npz", one, "--variant", "codebook").exit_code == 0
    assert tokenize(disk, "npz", other, "--variant", "onehot").exit_code == 0
    with np.load(one / "val/0.npz") as a, np.load(other / "val/0.npz") as b:
        assert (a["action_token"] == b["action_token"]).all()
        assert str(a["action_token_model"]) != str(b["action_token_model"])
    write_store(disk, variant="frames", mode="image")
    frames = tokenize(disk, "npz", tmp_path / "frames", "--variant", "frames")
    assert "no code for each step of a chunk of actions" in str(frames.exception)
    annotated = disk.tool("annotate", "-d", "calvin", "-m", "tokenizer", "--variant", "onehot", "--into", "npz", "--to",
                          str(tmp_path / "latents"))  # fmt: skip
    assert "a store of mode image is needed" in str(annotated.exception)
