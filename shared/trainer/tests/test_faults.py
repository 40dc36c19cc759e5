"""Bad input and faults: each a clear message and its exit code."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lary_schema.base import file_sha256
from lary_schema.jobs import WeightFile
from lary_schema.training import Labelled, Optimiser
from lary_trainer.steps import Stepper
from safetensors.torch import load_file, save_file

SUPERVISED = {"config": {"supervised": True}, "losses": {"pixels": 1.0, "action": 1.0}}


def refused(bench: Any, *words: str, code: int = 2, **options: Any) -> Any:
    done = bench.train(bench.job(**options))
    assert done.code == code, done.events[-1]
    for word in words:
        assert word in done.message
    return done


def test_an_unknown_trainee_names_those_there_are(bench: Any) -> None:
    job = bench.job()
    chosen = bench.recipe(trainee="toi", key="toi")
    done = bench.train(job.model_copy(update={"values": job.values.model_copy(update={"recipe": chosen})}))
    assert done.code == 2
    assert "'toi' (did you mean toy?); known: toy" in done.message


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"losses": {"pixels": 1.0, "kl": 1.0}}, ["kl has a weight", "no such term"]),
        ({"config": {"terms": ["more"]}}, ["computes more without a weight"]),
        ({"config": {"terms": ["more"]}, "losses": {"pixels": 1.0, "kl": 1.0}}, ["more without", "kl has a weight"]),
        ({"losses": {"pixels": 0.0}}, ["its losses move no parameter"]),
        ({"optimiser": Optimiser(lr=1e-2, scale={"lam": 0.1})}, ["optimiser.scale names lam", "encoder, rest"]),
        ({"config": {"ungrouped": True}}, ["leave out"]),
        ({"dt": 3}, ["dt is for clips"]),
        ({"config": {"supervised": True}}, ["reads action labels", "no labelled share"]),
    ],
)
def test_recipes_that_do_not_fit(bench: Any, changes: dict[str, Any], words: list[str]) -> None:
    job = bench.job(values={"recipe": bench.recipe(**changes), "labelled": None})
    done = bench.train(job)
    assert done.code == 2, done.events[-1]
    for word in words:
        assert word in done.message


def test_an_unknown_key_of_the_config(bench: Any) -> None:
    refused(bench, "unknown key 'widht'", values={"recipe": bench.recipe(config={"widht": 4})})


@pytest.mark.parametrize("dt", [None, 5, 6])
def test_pairs_that_no_clip_has(bench: Any, dt: int | None) -> None:
    words = ["dt must say"] if dt is None else [f"dt {dt} reaches beyond every clip", "choose 4 or less"]
    refused(bench, *words, clips=True, values={"recipe": bench.recipe(dt=dt)})


def test_another_image_than_planned(bench: Any) -> None:
    refused(bench, "code_sha256: planned 00", "plan it again", values={"code_sha256": "00"})


def test_labels_where_there_are_none(bench: Any) -> None:
    data, _ = bench.data("train", actions=None)
    refused(bench, "has no actions:", values={"recipe": bench.recipe(**SUPERVISED), "data": data})


def test_instructions_where_there_are_none(bench: Any) -> None:
    data, _ = bench.data("train", instruction=None)
    refused(bench, "has no instruction:", values={"recipe": bench.recipe(config={"text": True}), "data": data})


def test_a_share_that_leaves_no_group(bench: Any) -> None:
    values = {"recipe": bench.recipe(**SUPERVISED), "labelled": Labelled(share=0.1)}
    refused(bench, "0.1 leaves none of 6 groups", values=values)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_actions_that_are_no_numbers(bench: Any, value: float) -> None:
    """In the last row's file, which is also the last that is read."""
    _own_media(bench)
    path = bench.root / "data/toys/train/23.npy"
    actions = np.load(path)
    actions[1, 2] = value
    np.save(path, actions)
    refused(bench, "row 23", "23.npy", "not finite", values={"recipe": bench.recipe(**SUPERVISED)})


def _own_media(bench: Any) -> Path:
    link = bench.root / "data/toys"
    source = link.resolve()
    link.unlink()
    shutil.copytree(source, link)
    return Path(link)


# --- rows ---------------------------------------------------------------------------------------


def test_rows_that_cannot_be_read(bench: Any) -> None:
    """They are said, counted and left out; the others keep their order."""
    media = _own_media(bench)
    for row in (5, 11):
        (media / f"train/{row}_1.png").write_bytes((media / f"train/{row}_1.png").read_bytes()[:40])
    made = []
    for at, ram in enumerate((1 << 30, 0)):
        done = bench.train(bench.job(max_failed=0.1, ram_bytes=ram), out=f"out{at}")
        assert done.code == 0, done.events[-1]
        assert sorted(e.row for e in done.of("row_failed")) == [5, 11]
        assert {e.reason for e in done.of("row_failed")} == {"decode_error"}
        assert bench.result(f"out{at}").failed == {"train": 2}
        made.append(bench.model(f"out{at}"))
    assert made[0] == made[1]


@pytest.mark.parametrize("clips", [False, True])
def test_the_others_keep_their_order(bench: Any, monkeypatch: pytest.MonkeyPatch, clips: bool) -> None:
    """Every step trains on the rows that it trains on where all can be read, less those that cannot."""
    seen: list[list[int]] = []
    step = Stepper.step

    def recorded(stepper: Stepper, batch: Any, counts: list[int]) -> Any:
        seen.append(batch.rows.tolist())
        return step(stepper, batch, counts)

    monkeypatch.setattr(Stepper, "step", recorded)
    job = bench.job(clips=clips, max_failed=0.2, values={"recipe": bench.recipe(steps=9, dt=2 if clips else None)})
    assert bench.train(job, out="whole").code == 0
    whole, seen[:] = list(seen), []
    media = _own_media(bench)
    for row in (0, 7, 19):
        (media / f"train/{row}{'.mp4' if clips else '_1.png'}").write_bytes(b"cut")
    assert bench.train(job).code == 0
    assert len(whole) == 9
    assert seen == [[row for row in rows if row not in (0, 7, 19)] for rows in whole]
    assert seen != whole


def test_too_many_rows_that_cannot_be_read(bench: Any) -> None:
    media = _own_media(bench)
    for row in (5, 11, 12):
        (media / f"val/{row % 10}_0.png").unlink()
    refused(bench, "split val: 3 of 10 rows", "missing_file", "max_failed 0.1", code=3, held=True, max_failed=0.1)


def test_a_clip_that_is_cut(bench: Any) -> None:
    """A row fails as a whole, whichever pair of it a step wants: kept rows and others alike."""
    media = _own_media(bench)
    clip = media / "train/7.mp4"
    clip.write_bytes(clip.read_bytes()[: clip.stat().st_size // 2])
    made = []
    for number, ram in enumerate((1 << 30, 0)):
        done = bench.train(bench.job(clips=True, max_failed=0.1, ram_bytes=ram), out=f"out{number}")
        assert done.code == 0, done.events[-1]
        made.append((bench.model(f"out{number}"), [e.row for e in done.of("row_failed")]))
    assert made[0] == made[1]
    assert made[0][1] == [7]


def test_no_media(bench: Any) -> None:
    (bench.root / "data/toys").unlink()
    refused(bench, "folder of the media is missing")


def test_pairs_that_do_not_move(bench: Any) -> None:
    media = _own_media(bench)
    for row in range(24):
        shutil.copy(media / f"train/{row}_0.png", media / f"train/{row}_1.png")
    done = bench.train(bench.job())
    assert done.code == 0
    assert len([e for e in done.of("warning") if "copying the first frame is perfect" in e.message]) == 1
    assert "copying the first frame is perfect" in bench.result().warnings[0]


# --- numbers ------------------------------------------------------------------------------------


def test_a_loss_that_is_not_finite(bench: Any) -> None:
    chosen = bench.recipe(config={"nan_at": 12})
    refused(bench, "step 12: loss term 'pixels' is nan", code=7, values={"recipe": chosen})
    assert bench.states() == ["000005", "000010"]


def test_a_gradient_that_is_not_finite(bench: Any) -> None:
    chosen = bench.recipe(config={"nan_gradient_at": 7})
    refused(bench, "step 7: the gradient of scale is not finite", code=7, values={"recipe": chosen})
    assert bench.states() == ["000005"]


def test_a_term_without_weight_may_be_anything(bench: Any) -> None:
    chosen = bench.recipe(config={"nan_at": 12}, losses={"pixels": 0.0, "mean": 1.0})
    chosen = chosen.model_copy(update={"config": {"nan_at": 12, "terms": ["mean"]}})
    done = bench.train(bench.job(values={"recipe": chosen}))
    assert done.code == 0, done.events[-1]
    assert [m.values["pixels"] is None for m in bench.result().measured if m.split == "train"] == [False, True]


def test_health(bench: Any) -> None:
    chosen = bench.recipe(config={"health": True})
    done = bench.train(bench.job(held=True, values={"recipe": chosen}))
    assert (done.code, len(done.of("warning"))) == (0, 2)
    assert bench.result().warnings == tuple(f"step {step}: the codebook has collapsed" for step in (10, 20))
    done = bench.train(bench.job(held=True, values={"recipe": chosen}, strict_health=True), out="strict")
    assert (done.code, "strict_health" in done.message) == (7, True)


# --- memory and time ----------------------------------------------------------------------------


def test_memory_for_fewer_rows(bench: Any) -> None:
    """Parts are halved until they fit, which is said and recorded; another attempt begins with them."""
    chosen = bench.recipe(config={"room": 2, "nan_at": 18})
    job = bench.job(values={"recipe": chosen})
    done = bench.train(job)
    assert ([e.batch_size for e in done.of("batch_halved")], done.code) == ([3, 1], 7)
    done = bench.train(job)
    assert (done.of("batch_halved"), done.of("started")[0].skipped) == ([], 15)


def test_no_memory_for_one_row(bench: Any) -> None:
    values = {"recipe": bench.recipe(config={"room": 0})}
    done = refused(bench, "one row alone runs out of memory", code=5, values=values)
    assert [e.batch_size for e in done.of("batch_halved")] == [3, 1]


def test_losses_that_read_parameters_are_refused_in_parts(bench: Any) -> None:
    values = {"recipe": bench.recipe(config={"direct": True})}
    refused(bench, "`losses` uses the parameter scale itself", values=values, micro_batch=2)


def test_a_step_that_hangs(bench: Any) -> None:
    chosen = bench.recipe(config={"stall": 0})
    done = bench.run(bench.job(values={"recipe": chosen}, stall_timeout_s=5))
    assert done.code == 124
    assert "no progress for 5 s while" in done.message


# --- weights ------------------------------------------------------------------------------------


@pytest.fixture
def start(bench: Any) -> WeightFile:
    """A finished training below the weights mount."""
    job = bench.job()
    assert bench.train(job, out="weights/start").code == 0
    return WeightFile(name="start", path="start", sha256=job.fingerprint, trained=True)


def going_on(bench: Any, start: WeightFile, config: dict[str, Any] | None = None) -> Any:
    values = {"init": {"start": start.sha256}, "recipe": bench.recipe(config=config or {})}
    return bench.job(values=values, init=(start,))


def test_a_training_goes_on_from_another(bench: Any, start: WeightFile) -> None:
    job = going_on(bench, start)
    assert bench.train(job).code == 0
    assert bench.model() != bench.model("weights/start")
    assert bench.result().values.init == {"start": start.sha256}


def test_weights_of_another_size(bench: Any, start: WeightFile) -> None:
    done = bench.train(going_on(bench, start, {"width": 5}))
    assert (done.code, "has shape" in done.message) == (4, True)


def test_weights_that_are_not_those_of_the_plan(bench: Any, start: WeightFile) -> None:
    folder, job = bench.root / "weights/start", going_on(bench, start)
    tensors = load_file(folder / "model.safetensors")
    save_file({name: tensor * 2 for name, tensor in tensors.items()}, folder / "model.safetensors")
    done = bench.train(job)
    assert done.code == 4
    assert "not the file that training.json names" in done.message
    (folder / "training.json").unlink()
    done = bench.train(job)
    assert (done.code, "it is not finished" in done.message) == (4, True)


def test_weights_that_do_not_exist(bench: Any) -> None:
    missing = WeightFile(name="mae", path="mae.safetensors", sha256="0" * 64)
    job = bench.job(values={"init": {"mae": "0" * 64}}, init=(missing,))
    done = bench.train(job)
    assert (done.code, "are missing" in done.message) == (4, True)


def test_a_changed_csv(bench: Any) -> None:
    job = bench.job()
    path = bench.root / "job/train.csv"
    path.write_text(path.read_text() + "0_0.png,0_1.png,0.npy,ep0,push\n")
    assert file_sha256(path) != job.values.data.metadata_sha256
    done = bench.train(job)
    assert (done.code, "changed since it was planned" in done.message) == (2, True)


def test_no_held_out_row_can_be_read(bench: Any) -> None:
    """Said before the trainee divides by their number."""
    media = _own_media(bench)
    for row in range(10):
        (media / f"val/{row}_0.png").write_bytes(b"")
    refused(bench, "split val: 10 of 10 rows", code=3, held=True)
