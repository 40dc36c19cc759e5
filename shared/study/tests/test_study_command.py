"""`lary-orch study`: one plan of trainings, extractions and probes, equal trainings once; what is done stays done."""

import json
from typing import Any

import pytest


@pytest.fixture(scope="module")
def plan(bench: Any) -> dict[str, Any]:
    """The jobs of the whole study, none done."""
    from contextlib import redirect_stdout
    from io import StringIO

    out = StringIO()
    with redirect_stdout(out):
        assert bench.run("study", "toys", "--plan", "--json", workspace="fresh") == 0
    return {job["id"]: job for job in json.loads(out.getvalue())["jobs"]}


@pytest.fixture(scope="module")
def finished(bench: Any) -> dict[str, Any]:
    """The record of the study, done for one seed and two arms."""
    assert bench.run("study", "toys", "--seeds", "0", "--arms", "A0,A1") == 0
    return dict(bench.json("studies/toys.json"))


def test_equal_trainings_are_planned_once(plan: dict[str, Any]) -> None:
    """Two seeds of: lam, more, more with labels, and the untrained network."""
    trainings = [job for job in plan.values() if job["kind"] == "train"]
    assert len(trainings) == 8
    starts = {job["values"]["init"].get("start") for job in trainings} - {None}
    first = {j["values"]["seed"]: j for j in trainings if not j["values"]["init"] and j["values"]["recipe"]["steps"]}
    assert sorted(first) == [0, 1]
    assert len(starts) == 2
    shares = {json.dumps(job["values"]["labelled"]) for job in trainings}
    assert shares == {"null", '{"share": 0.5, "seed": 0}'}


def test_a_checkpoint_is_known_before_it_is_there(plan: dict[str, Any]) -> None:
    """Extractions name their training by its fingerprint, the key holds its first digits."""
    extracts = [job for job in plan.values() if job["kind"] == "extract" and job["values"]["model"] != "pixels"]
    assert len(extracts) == 8 * 2
    for job in extracts:
        (weight,) = job["weights"]
        assert (weight["name"], weight["path"], weight["trained"]) == ("checkpoint", "checkpoint", True)
        assert job["values"]["model"] == f"toy-demo-{weight['sha256'][:12]}"
        assert job["values"]["weights"] == {"checkpoint": weight["sha256"]}


def test_what_was_asked_for_is_done_and_the_record_holds_all(bench: Any, finished: dict[str, Any]) -> None:
    """Arms and baselines of one seed; the others' keys are known."""
    entries = {(e["arm"], e["seed"]): e["model"] for e in finished["entries"]}
    of_seeds = {(arm, s) for arm in ("A0", "A1", "A5", "random-init") for s in (0, 1)}
    assert set(entries) == of_seeds | {("pixels", None), ("once", None)}
    assert entries["once", None] == entries["random-init", 0]
    done = {folder.name for folder in (bench.workspace / "trained").iterdir()}
    assert done == {entries[arm, 0] for arm in ("A0", "A1", "random-init")}
    probed = {path.parts[-4] for path in (bench.workspace / "results").glob("*/*/*/*/result.json")}
    assert probed == done | {"pixels"}


def test_the_second_call_does_nothing(bench: Any, finished: dict[str, Any], capfd: pytest.CaptureFixture[str]) -> None:
    files = sorted(path for path in (bench.workspace / "trained").rglob("*") if path.is_file())
    before = [path.stat().st_mtime_ns for path in files]
    assert bench.run("study", "toys", "--seeds", "0", "--arms", "A0,A1") == 0
    out, err = capfd.readouterr()
    assert "nothing to do" in err
    assert "study toys: 3 arms x 2 seeds" in out
    assert [path.stat().st_mtime_ns for path in files] == before


def test_results_of_the_study(bench: Any, finished: dict[str, Any], capfd: pytest.CaptureFixture[str]) -> None:
    assert bench.run_results("--study", "toys", "--json") == 0
    document = json.loads(capfd.readouterr().out)
    arms = {reading["arm"] for reading in document["readings"]}
    assert arms == {"A0", "A1", "random-init", "once", "pixels"}
    for reading in document["readings"]:
        assert reading["low"] < reading["r2"] < reading["high"]
        assert reading["r2"] == pytest.approx(reading["seeds"][0]["r2"], abs=1e-3)
    (made,) = document["differences"]
    values = {r["arm"]: r["r2"] for r in document["readings"]}
    assert values["once"] == values["random-init"]
    assert (made["a"], made["b"], made["seeds"]) == ("A1", "A0", 1)
    assert made["difference"] == pytest.approx(values["A1"] - values["A0"], abs=1e-6)
    assert made["low"] <= made["difference"] <= made["high"]
    measured = {training["arm"]: training for training in document["trainings"]}
    assert measured["A0"]["means"]["copy"] > 0
    assert measured["random-init"]["means"]["copy"] > 0
    assert measured["A5"]["done"] == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("toys", "--seeds", "x"), "give numbers and ranges"),
        (("toys", "--arms", "A9"), "no arms of toys; it has A0, A1, A5"),
        (("toyz",), "no study 'toyz' (did you mean toys?)"),
    ],
)
def test_what_is_not_there_is_named(
    bench: Any, capfd: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str
) -> None:
    assert bench.run("study", *arguments) == 2
    assert message in capfd.readouterr().err
