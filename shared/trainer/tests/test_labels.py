"""What is read besides frames, or in their place: actions alone, and latent labels by episode and step."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lary_schema.base import ContractError, fingerprint
from lary_schema.cards import Latents
from lary_schema.mounts import Mounts
from lary_schema.training import Labelled
from lary_trainer.inputs import open_inputs
from lary_trainer.latents import read_latents
from lary_trainer.world import World

STEPS, TOKENS, WIDTH = 3, 2, 4
CARD = Latents(folder="toys/{split}", steps=STEPS, tokens=TOKENS, width=WIDTH, codes=16, dt=4, model="f" * 64)


def blind(bench: Any, **changes: Any) -> Any:
    chosen = bench.recipe(config={"blind": True, "supervised": True}, losses={"pixels": 1.0, "action": 0.1})
    return bench.job(held=True, values={"recipe": chosen}, **changes)


def test_without_frames_no_media_are_opened(bench: Any) -> None:
    """Nor must they be there; micro-batches and kills are those of every training."""
    found = []
    actions = {path: path.read_bytes() for path in bench.root.glob("data/toys/*/*.npy")}
    assert bench.train(blind(bench)).code == 0
    found.append(bench.model())
    (bench.root / "data/toys").unlink()
    for path, content in actions.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    done = bench.train(blind(bench, keep_states=True), out="again")
    assert done.code == 0, done.events[-1]
    assert not done.of("warning")
    found.append(bench.model("again"))
    (bench.root / "again/training.json").unlink()
    shutil.rmtree(bench.root / "again/state/000015")
    assert bench.train(blind(bench, keep_states=True), out="again").of("started")[0].skipped == 10
    found.append(bench.model("again"))
    assert len(set(found)) == 1


def episode(root: Path, name: str, count: int, **changes: Any) -> dict[str, Any]:
    rng = np.random.default_rng(count)
    arrays = {
        "latent_idx": rng.integers(0, 16, (count, TOKENS)),
        "latent_z": rng.normal(size=(count, TOKENS, WIDTH)).astype(np.float32),
        "latent_valid": np.arange(count) < count - 1,
        "latent_dt": np.array(4),
        "latent_model": np.array("f" * 64),
    } | changes
    root.mkdir(parents=True, exist_ok=True)
    np.savez(root / f"{name}.npz", **arrays)
    return arrays


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_labels_of_a_row_begin_at_its_step_and_end_with_its_episode(tmp_path: Path, count: int) -> None:
    arrays = episode(tmp_path, "e", count)
    places = [("e", step) for step in range(count)]
    found = read_latents(CARD, tmp_path, places, ("latent_idx", "latent_z"))
    for row in range(count):
        for at in range(STEPS):
            here = row + at
            valid = here < count and bool(arrays["latent_valid"][here])
            assert found["latent_valid"][row, at] == valid
            for name in ("latent_idx", "latent_z"):
                expected = arrays[name][here] if valid else np.zeros_like(arrays[name][0])
                np.testing.assert_array_equal(found[name][row, at], expected)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"latent_model": np.array("0" * 64)}, "its latents are of 0000"),
        ({"latent_dt": np.array(5)}, "dt 5; the card's"),
        ({"latent_dt": np.array([4, 4, 5])}, "dt 5; the card's"),
        ({"latent_idx": np.full((3, TOKENS), 16)}, "no numbers of 16 codes"),
        ({"latent_idx": np.full((3, TOKENS), -1)}, "no numbers of 16 codes"),
        ({"latent_idx": np.zeros((3, TOKENS))}, "no numbers of 16 codes"),
        ({"latent_idx": np.zeros((3, 1), np.int64)}, r"latent_idx has shape \(3, 1\)"),
        ({"latent_z": np.full((3, TOKENS, WIDTH), np.nan, np.float32)}, "not finite"),
        ({"latent_valid": np.zeros(2, bool)}, "has shape"),
        ({"latent_valid": np.zeros(3)}, "latent_valid is no list"),
    ],
)
def test_files_that_are_not_what_the_card_says_are_refused(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    episode(tmp_path, "e", 3, **changes)
    with pytest.raises(ContractError, match=said):
        read_latents(CARD, tmp_path, [("e", 0)], ("latent_idx", "latent_z"))


def test_files_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    episode(tmp_path, "short", 2)
    whole = (tmp_path / "short.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty.npz").write_bytes(b"")
    np.savez(tmp_path / "pickled.npz", latent_idx=np.array([{}], dtype=object))
    np.savez(tmp_path / "other.npz", x=np.zeros(3))
    for name in ("cut", "empty", "pickled", "other", "absent"):
        with pytest.raises(ContractError, match=name):
            read_latents(CARD, tmp_path, [(name, 0)], ("latent_idx",))
    with pytest.raises(ContractError, match="has 2 steps, a row asks for step 2"):
        read_latents(CARD, tmp_path, [("short", 2)], ("latent_idx",))


def test_batches_carry_the_labels_of_their_rows(bench: Any) -> None:
    """Rows of an episode stand one after the other in the CSV's order: 24 rows of 6 episodes."""
    root = bench.root / "labels"
    made = {f"ep{n}": episode(root / "train", f"ep{n}", 4, latent_idx=np.full((4, TOKENS), n)) for n in range(6)}
    (bench.root / "data/labels").symlink_to(root)
    card = CARD.model_copy(update={"folder": "labels/{split}"})
    chosen = bench.recipe(config={"latents": ["latent_idx"]})
    data, _ = bench.data("train", latents=card)
    job = bench.job(values={"recipe": chosen, "data": data, "labelled": Labelled(share=1)})
    device = torch.device("cpu")
    inputs = open_inputs(job, Mounts.from_env(), device, World(device), lambda: None)
    assert inputs.facts.latents == card
    batch = inputs.train_batch(next(inputs.train.batches(0, 1, 0, 1)))
    assert set(batch.latents) == {"latent_idx", "latent_valid"}
    for at, row in enumerate(batch.rows.tolist()):
        step = row // 6
        valid = [s < 4 and bool(made["ep0"]["latent_valid"][s]) for s in range(step, step + STEPS)]
        assert batch.latents["latent_valid"][at].tolist() == valid
        assert batch.latents["latent_idx"][at].tolist() == [[row % 6 if v else 0] * TOKENS for v in valid]


def test_a_set_without_labels_is_refused_by_recipes_that_read_them_alone(bench: Any) -> None:
    assert bench.train(bench.job(values={"recipe": bench.recipe(steps=1)})).code == 0
    done = bench.train(bench.job(values={"recipe": bench.recipe(config={"latents": ["latent_z"]})}), out="other")
    assert (done.code, "lary-orch data annotate" in done.message) == (2, True)


def test_other_recipes_do_not_look_for_the_columns_of_labels(bench: Any) -> None:
    card = CARD.model_copy(update={"column": "absent", "step": "absent too"})
    data, _ = bench.data("train", latents=card)
    assert bench.train(bench.job(values={"recipe": bench.recipe(steps=1), "data": data})).code == 0
    chosen = bench.recipe(config={"latents": ["latent_z"]})
    done = bench.train(bench.job(values={"recipe": chosen, "data": data}), out="other")
    assert (done.code, "absent" in done.message) == (2, True)


def test_sets_without_labels_keep_their_fingerprint(bench: Any) -> None:
    """What was trained before there were latent labels is found again."""
    values = bench.job(held=True).values
    document = values.model_dump(mode="json")
    assert "latents" not in document["data"]
    assert "latents" not in document["held_out"]
    assert values.fingerprint == fingerprint(document)
    labelled = values.model_copy(update={"data": values.data.model_copy(update={"latents": CARD})})
    assert labelled.fingerprint != values.fingerprint
    assert type(values).parse(labelled.model_dump(mode="json"), "again") == labelled


def test_a_compressed_file_whose_stream_is_damaged_is_refused(tmp_path: Path) -> None:
    arrays = episode(tmp_path, "e", 7)
    path = tmp_path / "e.npz"
    np.savez_compressed(path, **arrays)
    data = bytearray(path.read_bytes())
    start = 30 + int.from_bytes(data[26:28], "little") + int.from_bytes(data[28:30], "little")
    data[start : start + 8] = b"\xff" * 8
    path.write_bytes(data)
    with pytest.raises(ContractError, match=r"e\.npz: no file of arrays"):
        read_latents(CARD, tmp_path, [("e", 0)], ("latent_idx",))
