"""The regression probe on toy stores: what it scores, what it writes, what it refuses."""

import csv
import json
import re
from typing import Any

import numpy as np
import pytest
from lary_probe.actions import standardised
from lary_probe.scales import Scale, train_scale
from lary_schema.base import ContractError
from lary_schema.cards import Actions, Normalisation

Change = dict[str, Any]


def actions_with(job: Any, **changes: Any) -> Any:
    """The job with its dataset's actions changed."""
    return job.model_copy(update={"actions": Actions(**(job.actions.model_dump() | changes))})


def rewritten(bench: Any, split: str, row: int, content: bytes) -> None:
    (bench.mounts.data / "actions" / f"{split}_{row}.npy").write_bytes(content)


def test_linear_actions_are_decoded(toy_actions: Any) -> None:
    result = toy_actions.run(toy_actions.job("regress"))
    score = result.splits["val"]
    best = score.seeds[0].best
    assert result.metric == "mse"
    assert score.value < 0.55 * score.floor
    assert best.r2 is not None
    assert best.r2 > 0.4
    assert score.interval.low < score.value < score.interval.high
    assert np.mean(list(score.per_dimension.values())) == pytest.approx(score.value)
    position = (score.per_dimension["x"] + score.per_dimension["y"]) / 2
    assert score.per_group == pytest.approx({"position": position, "gripper": score.per_dimension["grip"]})


def test_a_separable_set_is_learnt_and_a_shuffled_one_is_not(toy_signs: Any) -> None:
    job = toy_signs.job("regress")
    score = toy_signs.run(job).splits["val"]
    assert score.floor == pytest.approx(1)
    assert score.value < 0.01
    shuffled = toy_signs.run(job.model_copy(update={"control": "shuffled"})).splits["val"]
    # Worse than the mean by what was memorised: a measure of overfitting, no baseline.
    assert 0.95 * shuffled.floor < shuffled.value < 1.5 * shuffled.floor


def test_same_job_same_bits_from_memory_and_disk(toy_actions: Any) -> None:
    one, two, streamed = (
        toy_actions.run(toy_actions.job("regress", **more)).model_dump(exclude={"seconds"})
        for more in ({}, {}, {"ram_bytes": 1})
    )
    assert one == two == streamed


def test_floor_is_the_train_mean(toy_actions: Any) -> None:
    score = toy_actions.run(toy_actions.job("regress")).splits["val"]
    chunks = {
        split: np.stack([np.load(toy_actions.mounts.data / f"actions/{split}_{i}.npy") for i in range(count)])
        for split, count in (("train", 64), ("val", 24))
    }
    mean = chunks["train"].reshape(-1, 3).mean(axis=0)
    std = chunks["train"].reshape(-1, 3).std(axis=0)
    train, val = ((chunks[s] - mean) / std for s in ("train", "val"))
    assert score.floor == pytest.approx(np.mean((val - train.mean(axis=0)) ** 2), rel=1e-5)


def test_shuffled_control_is_no_better_than_the_baseline(toy_actions: Any) -> None:
    control = toy_actions.run(toy_actions.job("regress", control="shuffled"))
    assert control.control == "shuffled"
    assert control.splits["val"].value > 0.9 * control.splits["val"].floor


def test_the_best_epoch_is_the_one_with_the_least_held_out_error(toy_actions: Any) -> None:
    seed = toy_actions.run(toy_actions.job("regress")).splits["val"].seeds[0]
    assert seed.best.selection <= min(seed.early.selection, seed.last.selection)


def test_outputs_agree_with_each_other(toy_actions: Any, real_pictures: None) -> None:
    score = toy_actions.run(toy_actions.job("regress")).splits["val"]
    out = toy_actions.mounts.out
    pairs = np.load(out / "predictions_val.npy")
    assert pairs.shape == (24, 2, 2, 3)
    assert np.square(pairs[:, 0] - pairs[:, 1]).mean() == pytest.approx(score.value, rel=1e-5)
    with (out / "best_result.csv").open(newline="") as file:
        (best,) = csv.DictReader(file)
    assert float(best["mse"]) == score.value
    assert float(best["mse_grip"]) == pytest.approx(score.per_dimension["grip"])
    with (out / "log_r0.csv").open(newline="") as file:
        log = list(csv.DictReader(file))
    assert [int(line["epoch"]) for line in log] == [1, 2, 3, 4]
    assert float(log[-1]["val_mse"]) == score.seeds[0].last.value
    with (out / "predictions.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["row"]) for row in rows] == list(range(24))
    assert np.mean([float(row["mse"]) for row in rows]) == pytest.approx(score.value, rel=1e-4)
    assert sorted(p.name for p in (out / "eval_vis/val").iterdir()) == [f"sample_{i}.png" for i in range(4)]


def test_pictures_show_frames_where_they_can_be_read(toy_actions: Any, real_pictures: None) -> None:
    from matplotlib.image import imsave

    job = toy_actions.job("regress")
    toy_actions.run(job)
    without = {p.name: len(p.read_bytes()) for p in (toy_actions.mounts.out / "eval_vis/val").iterdir()}
    images = toy_actions.mounts.data / "images/val"
    images.mkdir(parents=True)
    for row in range(24):
        imsave(images / f"é {row}.png", np.random.default_rng(row).random((16, 16, 3)))
    toy_actions.run(job)
    for picture in (toy_actions.mounts.out / "eval_vis/val").iterdir():
        assert len(picture.read_bytes()) > without[picture.name]


def test_failed_rows_need_no_action(toy_actions: Any) -> None:
    tokens = np.random.default_rng(5).normal(size=(6, 1, 2, 4))
    cells = [*(f"val_{i}.npy" for i in range(5)), "gone.npy"]
    toy_actions.split("val", tokens, cells, failed=(5,))
    rows = toy_actions.run(toy_actions.job("regress")).splits["val"].rows
    assert (rows.used, rows.failed) == (5, 1)


def test_flat_chunks_are_taken_too(toy_actions: Any) -> None:
    first = toy_actions.run(toy_actions.job("regress")).splits["val"].value
    for path in (toy_actions.mounts.data / "actions").iterdir():
        np.save(path, np.load(path).reshape(-1))
    assert toy_actions.run(toy_actions.job("regress")).splits["val"].value == first


def test_folder_may_name_the_split(toy_actions: Any) -> None:
    for split in ("train", "val"):
        folder = toy_actions.mounts.data / f"{split}_stride2"
        folder.mkdir()
        for path in (toy_actions.mounts.data / "actions").glob(f"{split}_*.npy"):
            path.rename(folder / path.name)
    job = actions_with(toy_actions.job("regress"), folder="{split}_stride2")
    assert toy_actions.run(job).splits["val"].rows.used == 24


def test_absolute_cells_below_the_hosts_data_are_found(toy_actions: Any) -> None:
    tokens = np.random.default_rng(2).normal(size=(4, 1, 2, 4))
    split = toy_actions.split("val", tokens, [f"/host/data/actions/val_{i}.npy" for i in range(4)])
    source = split.source.model_copy(update={"host_data": "/host/data"})
    job = toy_actions.job("regress", evaluate=(split.model_copy(update={"source": source}),))
    assert toy_actions.run(job).splits["val"].rows.used == 4


def npy(values: Any) -> bytes:
    import io

    buffer = io.BytesIO()
    np.save(buffer, values, allow_pickle=True)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (npy(np.zeros((3, 3))), "has shape (3, 3), expected (2, 3) or (6,)"),
        (npy(np.full((2, 3), np.inf)), "not finite"),
        (npy(np.array([{"a": 1}], dtype=object)), "is no plain .npy array"),
        (npy(np.zeros((2, 3)))[:-8], "is no plain .npy array"),
        (npy(np.array(["x"] * 6)), "is no plain .npy array of numbers"),
        (b"", "is no plain .npy array"),
        (b"text", "is no plain .npy array"),
    ],
)
def test_an_unusable_action_file_names_file_and_row(toy_actions: Any, content: bytes, says: str) -> None:
    rewritten(toy_actions, "val", 7, content)
    with pytest.raises(ContractError, match=re.escape(says)) as caught:
        toy_actions.run(toy_actions.job("regress"))
    assert "val.csv: row 7: " in str(caught.value)
    assert "actions/val_7.npy" in str(caught.value)


@pytest.mark.parametrize(
    ("cell", "says"),
    [("gone.npy", "No such file"), ("../secret.npy", "contains '..'"), ("", "column 'action' is empty")],
)
def test_an_unusable_action_cell_names_file_and_row(toy_actions: Any, cell: str, says: str) -> None:
    toy_actions.split("val", np.zeros((2, 1, 2, 4)), ["val_0.npy", cell])
    with pytest.raises(ContractError, match=re.escape(says)) as caught:
        toy_actions.run(toy_actions.job("regress"))
    assert "val.csv: row 1: " in str(caught.value)


def test_constant_dimensions_are_only_centred() -> None:
    chunks = np.random.default_rng(0).normal(3, 2, size=(50, 4, 2))
    chunks[..., 1] = 7
    targets = standardised(chunks, train_scale(chunks)).reshape(50, 4, 2)
    np.testing.assert_allclose(targets[..., 0].mean(), 0, atol=1e-6)
    np.testing.assert_allclose(targets[..., 0].std(), 1, atol=1e-6)
    assert not targets[..., 1].any()


def test_chunks_are_flattened_step_by_step() -> None:
    chunks = np.arange(6.0).reshape(1, 2, 3)
    targets = standardised(chunks, Scale.of(np.array([0.0, 1, 2]), np.array([1.0, 2, 1e-9])))
    assert targets.tolist() == [[0, 0, 0, 3, 1.5, 3]]
    assert targets.dtype == np.float32


def test_fixed_normalisation(toy_actions: Any) -> None:
    fixed = Normalisation(kind="fixed", mean=(1, 2, 3), std=(2, 4, 0))
    toy_actions.run(actions_with(toy_actions.job("regress"), normalisation=fixed))
    truth = np.load(toy_actions.mounts.out / "predictions_val.npy")[5, 0]
    raw = np.load(toy_actions.mounts.data / "actions/val_5.npy")
    np.testing.assert_allclose(truth, (raw - [1, 2, 3]) / [2, 4, 1], rtol=1e-5)


def robot_bench(toy: Any, stats: Any, robots: list[str]) -> Any:
    """Val rows of these robot types, normalised by a statistics file."""
    (toy.mounts.data / "stats.json").write_text(json.dumps(stats))
    rng = np.random.default_rng(0)
    for split, types in (("train", ["arm"] * 8), ("val", robots)):
        cells = [f"{split}_{i}.npy" for i in range(len(types))]
        toy.split(split, rng.normal(size=(len(types), 1, 2, 4)), cells, columns={"robot_type": types})
    per_robot = Normalisation(kind="per-robot", stats="stats.json")
    return actions_with(toy.job("regress"), normalisation=per_robot)


STATS = {"robot_stats": {"arm": {"mean": [0, 0, 0], "std": [1, 1, 1]}, "nan": {"mean": [1, 1, 1], "std": [2, 2, 1e-9]}}}


def test_per_robot_normalisation(toy_actions: Any) -> None:
    toy_actions.run(robot_bench(toy_actions, STATS, ["arm", "", "arm"]))
    pairs = np.load(toy_actions.mounts.out / "predictions_val.npy")
    raw = [np.load(toy_actions.mounts.data / f"actions/val_{i}.npy") for i in range(3)]
    np.testing.assert_allclose(pairs[0, 0], raw[0], rtol=1e-5)
    np.testing.assert_allclose(pairs[1, 0], (raw[1] - 1) / [2, 2, 1], rtol=1e-5)


@pytest.mark.parametrize(
    ("stats", "robots", "says"),
    [
        (STATS, ["arm", "hand"], "val.csv: 1 rows, first row 1); "),
        ({"robot_stats": {"arm": STATS["robot_stats"]["arm"]}}, ["arm", ""], "robot types without statistics: 'nan' ("),
        ({"robots": {}}, ["arm"], "stats.json: expected"),
        ({"robot_stats": {"arm": {"mean": [0], "std": [1]}}}, ["arm"], "robot type 'arm' needs 3 means and stds"),
    ],
)
def test_bad_robot_statistics_are_refused(toy_actions: Any, stats: Any, robots: list[str], says: str) -> None:
    with pytest.raises(ContractError, match=re.escape(says)):
        toy_actions.run(robot_bench(toy_actions, stats, robots))


def test_a_diverged_training_is_no_score(toy_actions: Any) -> None:
    job = toy_actions.job("regress")
    recipe = job.protocol.regress.model_copy(update={"lr": 1e30})
    with pytest.raises(ContractError, match="training diverged in epoch 1 of seed 0"):
        toy_actions.run(job.model_copy(update={"protocol": job.protocol.model_copy(update={"regress": recipe})}))


def test_one_train_row_cannot_be_held_out(toy_actions: Any) -> None:
    train = toy_actions.split("train", np.zeros((1, 1, 2, 4)), ["train_0.npy"])
    with pytest.raises(ContractError, match="nothing is left to hold out"):
        toy_actions.run(toy_actions.job("regress", train=train))
