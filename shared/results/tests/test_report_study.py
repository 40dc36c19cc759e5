"""A study on the page: its tables, curves of every arm, a collapsed codebook in red, pictures."""

import base64
import re
from datetime import UTC, datetime
from pathlib import Path

import pytest
from lary_results.report.evidence import gather
from lary_results.report.page import page
from lary_results.study.arms import Study
from lary_results.study.measures import is_collapsed
from lary_results.study.record import StudyEntry, StudyRecord
from lary_results.study.tables import study_tables
from lary_schema.cards import PairColumns
from lary_schema.training import Measures, Optimiser, Recipe, TrainData, TrainResult, TrainValues
from lary_terminal.tables import plain

PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


def values_of(recipe: Recipe, data: TrainData) -> TrainValues:
    return TrainValues(recipe=recipe, data=data, seed=0, code_sha256="c")


def training(arm: str, perplexity: float, *, steps: int = 300, supervised: bool = False) -> TrainResult:
    recipe = Recipe(
        key="moto-demo", title=arm, trainee="moto", config={"codes": 128}, optimiser=Optimiser(lr=0.1), batch_size=2,
        steps=steps, losses={"pixels": 1.0},
    )  # fmt: skip
    data = TrainData(dataset="d", split="train", metadata_sha256="a" * 64, columns=PairColumns(), media=".", frames=1)
    values = {"rec": 0.1, "copy": 0.4, "shuffled": 0.3, "perplexity": perplexity, "codes_used": 100.0, "odd": None}
    measured = [Measures(step=step, split="val", values=values) for step in (0, 150, steps)]
    measured.append(Measures(step=150, split="train", values={"pixels": 1.0}))
    return TrainResult(
        key=f"m-{arm}", fingerprint="f", values=values_of(recipe, data), files={},
        supervision="joint" if supervised else "none", rows=10, labelled_rows=3250, labelled_groups=250,
        measured=tuple(measured), image="i", device="cpu", threads=1, processes=1, micro_batch=2, seconds=1,
        warnings=("the codebook has collapsed",) if perplexity < 10 else (),
    )  # fmt: skip


@pytest.fixture
def study() -> Study:
    made = {"A0": training("A0", 110), "A2": training("A2", 4, supervised=True), "random": training("R", 1, steps=0)}
    entries = tuple(StudyEntry(arm=arm, model=f"m-{arm}", seed=0) for arm in made)
    record = StudyRecord(
        key="demo", title="<LARA>", dataset="d", protocol="study", variants=("embed",),
        arms={"A0": "LAM", "A2": "joint"}, baselines={"random": "untrained"}, compare=(), entries=entries,
    )  # fmt: skip
    return Study(record, (), {f"m-{arm}": result for arm, result in made.items()})


def test_few_codes_in_use_are_an_alarm(study: Study) -> None:
    """Not of a network that was never trained: nothing was assigned to its codes."""
    found = {arm: is_collapsed(study.results(arm)[0]) for arm in ("A0", "A2", "random")}
    assert found == {"A0": False, "A2": True, "random": False}
    (table,) = [one for one in study_tables(study) if one.title.startswith("trainings")]
    assert table.alarming == {1}
    text = plain(table)
    assert "COLLAPSED (1 of 1)" in text
    assert "A2: the codebook has collapsed" in text


def test_the_page_shows_a_study(study: Study, tmp_path: Path) -> None:
    checkpoint = tmp_path / "trained/m-A0/checkpoint"
    checkpoint.mkdir(parents=True)
    (checkpoint / "reconstructions.png").write_bytes(PIXEL)
    evidence = gather(tmp_path / "results", tmp_path / "runs", "*", None, {}, 0.05)
    results = {**study.trainings, "m-A0": study.trainings["m-A0"].model_copy(update={"key": "m-A0"})}
    shown = Study(study.record, (), results, home=tmp_path)
    text = page(evidence, 6, datetime.now(UTC), [shown]).decode()
    assert 'href="#study-demo"' in text
    assert "&lt;LARA&gt;" in text
    assert text.count('class="curve one"') == 6  # errors and perplexity, three arms
    assert re.search(r'<b class="alarm">COLLAPSED', text)
    assert text.count("data:image/png;base64," + base64.b64encode(PIXEL).decode()) == 1
    assert "No results in" not in text


def test_more_measures_than_the_page_has_room_for_are_lines(study: Study, tmp_path: Path) -> None:
    """And what a training warned of again and again is folded."""
    values = {f"measure_{n}": float(n) for n in range(20)}
    results = {
        key: result.model_copy(
            update={
                "measured": (Measures(step=300, split="val", values=values),),
                "warnings": tuple(f"at step {step}" for step in range(9)),
            }
        )
        for key, result in study.trainings.items()
    }
    evidence = gather(tmp_path / "results", tmp_path / "runs", "*", None, {}, 0.05)
    text = page(evidence, 6, datetime.now(UTC), [Study(study.record, (), results)]).decode()
    assert '<thead><tr><th>arm</th><th class="n">A0</th><th class="n">A2</th><th class="n">random</th>' in text
    assert "<tr><td>measure 7</td>" + '<td class="n">7.000</td>' * 3 in text
    assert "<details><summary>27 notes</summary>" in text


def test_without_a_study_the_page_is_as_it_was(tmp_path: Path) -> None:
    evidence = gather(tmp_path / "results", tmp_path / "runs", "*", None, {}, 0.05)
    text = page(evidence, 6, datetime.now(UTC)).decode()
    assert "No results in" in text
    assert "#study-" not in text
