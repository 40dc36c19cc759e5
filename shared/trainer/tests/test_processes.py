"""Several processes (gloo) share each batch: the losses of one process, and resume."""

import signal
from typing import Any

import pytest
from lary_schema.training import Optimiser

COUPLED: dict[str, Any] = {
    "config": {"couple": True, "supervised": True, "text": True},
    "losses": {"pixels": 1.0, "couple": 0.5, "action": 0.1},
}


def curves(bench: Any, out: str) -> list[dict[str, float]]:
    return [m.values for m in bench.result(out).measured if m.split == "train"]


def test_two_processes_and_one(bench: Any) -> None:
    """50 steps, measured at each: equal but for rounding; a batch of 5 rows is 3 and 2."""
    optimiser = Optimiser(lr=1e-3, warmup=3, weight_decay=0.01, clip=1.0)
    chosen = bench.recipe(steps=50, batch_size=5, optimiser=optimiser, **COUPLED)
    job = bench.job(held=True, values={"recipe": chosen}, evaluate_every=1, save_every=20)
    assert bench.train(job, out="one").code == 0
    two = job.model_copy(update={"processes": 2})
    done = bench.run(two, out="two")
    assert done.code == 0, done.stderr
    one, both = curves(bench, "one"), curves(bench, "two")
    assert len(one) == len(both) == 50
    for mine, theirs in zip(one, both, strict=True):
        for name in ("pixels", "couple", "action", "total"):
            assert theirs[name] == pytest.approx(mine[name], rel=1e-5), name
    assert (bench.result("two").processes, bench.result("one").processes) == (2, 1)
    assert [e.step for e in done.of("saved")] == [20, 40]


def test_two_processes_killed(bench: Any) -> None:
    """The launcher is killed, in the middle of the steps: all end, and the same command ends in the same bytes."""
    chosen = bench.recipe(steps=30, **(COUPLED | {"config": {**COUPLED["config"], "pause": 0.01, "dropout": True}}))
    job = bench.job(values={"recipe": chosen}, processes=2, save_every=4)
    assert bench.run(job, out="whole").code == 0
    # It comes no further than to a step after the second state, however late the kill comes.
    process = bench.start(job, env={"LARY_TEST_STALL": "11"})
    assert process.stdout is not None
    saved = (line for line in process.stdout if '"event": "saved"' in line)
    next(saved)
    next(saved)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=280)
    done = bench.run(job)
    assert done.code == 0, done.stderr
    assert done.of("started")[0].skipped >= 8
    assert bench.model() == bench.model("whole")


def test_what_goes_wrong_in_one_ends_all(bench: Any) -> None:
    """Memory that runs out in the part of one is halved in all; a loss that is not finite is said once."""
    chosen = bench.recipe(config={"room": 2, "nan_at": 7})
    done = bench.run(bench.job(values={"recipe": chosen}, processes=2, save_every=3))
    assert done.code == 7, done.stderr
    assert [e.batch_size for e in done.of("batch_halved")] == [1]
    assert "step 7: loss term 'pixels' is nan" in done.message
    assert bench.states() == ["000003", "000006"]


def test_a_batch_that_cannot_be_shared(bench: Any) -> None:
    done = bench.run(bench.job(values={"recipe": bench.recipe(batch_size=1)}, processes=2))
    assert (done.code, "cannot be shared by 2 processes" in done.message) == (2, True)
