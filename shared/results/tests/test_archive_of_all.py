"""Evaluations, trainings and studies as a zip file: out, in again, in the tables and the report of somebody else."""

import io
import json
import os
import zipfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from lary_results.archive import INDEX, export, import_results
from lary_results.evaluation_tables import as_json, paired_json, pairs, print_evaluations
from lary_results.evaluations import Board, boards, read_evaluations
from lary_results.files import read_results
from lary_results.parts import EVALUATION, RESULT, STUDY, TRAINING, counted, document_of
from lary_results.report.evidence import gather
from lary_results.report.page import page
from lary_results.study.loading import load_studies, load_study
from lary_results.study.record import StudyEntry, StudyRecord, record_path
from lary_results.study.tables import print_study
from lary_results.trained import trained_rows
from lary_schema.atomic import publish_text
from lary_schema.base import ContractError
from lary_schema.cards import PairColumns
from lary_schema.evaluation import EPISODES_FILE, Episode, EvaluateValues, EvaluationResult
from lary_schema.runs import PlanFile, RunEvaluation, RunTraining
from lary_schema.trained import Checkpoint, trained_models
from lary_schema.training import Measures, Optimiser, Recipe, TrainData, TrainResult, TrainValues

PROTOCOLS = ({"horizon": 9, "settle": 2}, {"horizon": 7, "settle": 0, "first": 1, "use": 1, "hold": 3})


def evaluate(
    results: Path, policy: str, successes: str, *, task: str = "lift", seed: int = 0, code: str = "p", protocol: int = 0
) -> Path:
    """A letter an episode: `y`es, `n`o, `t`imeout; with a video of the first, and what no archive holds."""
    values = EvaluateValues.model_validate(
        {
            "policy": policy, "policy_code_sha256": code, "benchmark": "world", "benchmark_code_sha256": "b",
            "task": task, "states": list(range(len(successes))), "seed": seed, "protocol": PROTOCOLS[protocol],
        }
    )  # fmt: skip
    episodes = tuple(
        Episode(
            state=state, success=letter == "y", held=True if letter == "y" else None, steps=5,
            fault="policy_timeout" if letter == "t" else None, trace_sha256=f"{state:064x}",
        )
        for state, letter in enumerate(successes)
    )  # fmt: skip
    result = EvaluationResult(
        fingerprint=values.fingerprint, values=values, episodes=episodes, simulator_image="i", libraries={"numpy": "2"}
    )
    folder = results / "evaluate/world" / policy / values.name
    publish_text(folder / "evaluation.json", result.to_json())
    publish_text(folder / EPISODES_FILE, "journal")
    publish_text(folder / "recorded" / task / "0.npy", "actions")
    publish_text(folder / episodes[0].video, "\0\0\0\x20ftypisom")
    return folder / "evaluation.json"


def train(root: Path, seed: int) -> str:
    recipe = Recipe(
        key="moto-demo",
        title="t",
        trainee="moto",
        optimiser=Optimiser(lr=0.1),
        batch_size=2,
        steps=3,
        losses={"pixels": 1.0},
    )
    data = TrainData(dataset="d", split="train", metadata_sha256="a" * 64, columns=PairColumns(), media=".", frames=1)
    values = TrainValues(recipe=recipe, data=data, seed=seed, code_sha256="c")
    measured = (Measures(step=3, split="val", values={"rec": 0.125 + seed, "perplexity": 4.0}),)
    result = TrainResult(
        key=values.key, fingerprint=values.fingerprint, values=values, files={}, supervision="none", rows=10,
        labelled_rows=0, labelled_groups=0, measured=measured, image="i", device="cpu", threads=1, processes=1,
        micro_batch=2, seconds=1,
    )  # fmt: skip
    folder = Checkpoint.of(root / "trained", values.key).folder
    publish_text(folder / "training.json", result.to_json())
    for name in ("model.safetensors", "card.json", "reconstructions.png", "state/3/tensors"):
        publish_text(folder / name, name)
    return values.key


def study(root: Path) -> StudyRecord:
    entries = tuple(StudyEntry(arm="A0", model=train(root, seed), seed=seed) for seed in (0, 1))
    record = StudyRecord(
        key="demo", title="two seeds", dataset="d", protocol="study", variants=("embed",), arms={"A0": "LAM"},
        baselines={}, compare=(), entries=entries,
    )  # fmt: skip
    publish_text(record_path(root / "studies", "demo"), record.to_json())
    return record


@pytest.fixture
def theirs(tmp_path: Path, write: Callable[..., Path]) -> Path:
    """A workspace with some of everything."""
    root = tmp_path / "ws"
    write("lam", "d", {"val": 0.5}, run="a-1")
    for seed, codes in enumerate(("yynyynty", "yynnyyyy")):
        evaluate(root / "results", "mine", codes, seed=seed)
    evaluate(root / "results", "mine", "nn", task="push", protocol=1)
    evaluate(root / "results", "zero", "nnnnnnnn")
    study(root)
    return root


@pytest.fixture
def packed(theirs: Path, tmp_path: Path) -> Path:
    file = tmp_path / "theirs.zip"
    counts = export(theirs / "results", "*", None, file)
    assert counts == {RESULT: 1, EVALUATION: 4, TRAINING: 2, STUDY: 1}
    assert counted(counts) == "1 result, 4 evaluations, 2 trainings, 1 study"
    return file


def tables(results: Path, pair: tuple[str, str] | None = None) -> str:
    out = io.StringIO()
    print_evaluations(boards(read_evaluations(results)), pair, out)
    return out.getvalue()


def one(results: Path, protocol: int = 0) -> Board:
    (found,) = (b for b in boards(read_evaluations(results)) if b.protocol.horizon == PROTOCOLS[protocol]["horizon"])
    return found


# --- evaluations ------------------------------------------------------------------------------


def test_tables_are_the_same_elsewhere_with_marks(theirs: Path, packed: Path, tmp_path: Path) -> None:
    """Rates, intervals, seeds, protocols, differences: all computed anew from the episodes."""
    mine = tmp_path / "mine/results"
    made = import_results(packed, mine)
    assert (made.is_new, made.text) == (True, f"1 result, 4 evaluations, 2 trainings, 1 study in {made.folder}")
    here, there = (boards(read_evaluations(results)) for results in (theirs / "results", mine))
    documents = as_json(there)
    assert [p.pop("imported") for board in documents for p in board["policies"]] == [["theirs.zip"]] * 3
    whole = as_json(here)
    assert [p.pop("imported") for board in whole for p in board["policies"]] == [[]] * 3
    assert documents == whole
    assert paired_json(pairs(there, "mine", "zero")) == paired_json(pairs(here, "mine", "zero"))
    text = tables(mine)
    assert "70.0 [" not in text
    assert text.count("°") > 4
    assert "° imported from theirs.zip, made elsewhere: mine, zero" in text
    assert "° imported from theirs.zip" in tables(mine, ("mine", "zero"))
    assert "°" not in tables(theirs / "results")


def test_videos_come_along_and_recordings_journals_and_models_do_not(packed: Path, tmp_path: Path) -> None:
    folder = import_results(packed, tmp_path / "mine/results").folder
    names = {path.name for path in folder.rglob("*") if path.is_file()}
    assert names >= {"evaluation.json", "training.json", "reconstructions.png", "demo.json", "result.json"}
    assert sum(name.endswith(".mp4") for name in names) == 1  # the same first episode everywhere
    assert not names & {EPISODES_FILE, "0.npy", "model.safetensors", "card.json", "tensors"}
    text = page(gather(tmp_path / "mine/results", tmp_path / "mine/runs"), 1, datetime.now(UTC)).decode()
    assert text.count("<video ") == 4
    assert "imported from theirs.zip" in text


def test_what_was_evaluated_here_goes_before_however_old(packed: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine/results"
    os.utime(evaluate(mine, "mine", "nnnnnnnn"), (1e9, 1e9))
    import_results(packed, mine)
    standing = one(mine).standings["mine"]
    assert [episode.success for episode in standing.episodes["lift"][0].values()] == [False] * 8
    assert sum(episode.success for episode in standing.episodes["lift"][1].values()) == 6
    assert standing.imported == {("lift", 1): "theirs.zip"}
    assert "imported from" in tables(mine)


def test_another_policy_of_the_same_name_is_a_line_of_its_own(packed: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine/results"
    evaluate(mine, "mine", "yyyyyyyy", code="another")
    import_results(packed, mine)
    found = one(mine)
    assert set(found.standings) == {"mine", "mine (theirs.zip)", "zero"}
    assert found.standings["mine"].imported == {}
    assert found.standings["mine"].seeds == [0]
    assert found.standings["mine (theirs.zip)"].seeds == [0, 1]
    made = found.difference("mine", "mine (theirs.zip)")
    assert made is not None
    assert made.value > 0


def test_of_two_imports_the_newer_counts(theirs: Path, packed: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine/results"
    import_results(packed, mine)
    path = evaluate(theirs / "results", "mine", "yyyyyyyy")
    os.utime(path, (2e9, 2e9))
    export(theirs / "results", "*", None, tmp_path / "later.zip")
    import_results(tmp_path / "later.zip", mine)
    standing = one(mine).standings["mine"]
    assert all(episode.success for episode in standing.episodes["lift"][0].values())
    assert standing.imported["lift", 0] == "later.zip"


def test_what_was_imported_is_not_exported_again(packed: Path, tmp_path: Path) -> None:
    import_results(packed, tmp_path / "mine/results")
    with pytest.raises(ContractError, match="nothing to export"):
        export(tmp_path / "mine/results", "*", None, tmp_path / "again.zip")


def test_a_run_takes_what_its_plan_names(theirs: Path, tmp_path: Path) -> None:
    """By name: the workspace may have been moved since."""
    (path,) = (theirs / "results").glob("evaluate/world/zero/*/evaluation.json")
    (first, _) = (checkpoint.key for checkpoint in trained_models(theirs / "trained"))
    moved = Path("/elsewhere", path.relative_to(theirs.parent))
    values = EvaluationResult.read(path).values
    plan = PlanFile(
        run="e-1", protocol="evaluate", latents="l", stores=(), probes=(), problems=(),
        trainings=(RunTraining(id="t", key=first, result="/elsewhere/training.json"),),
        evaluations=(
            RunEvaluation(
                id="e", policy="zero", benchmark="world", task="lift", seed=0, fingerprint=values.fingerprint,
                states=values.states, result=str(moved),
            ),
        ),
    )  # fmt: skip
    publish_text(theirs / "runs/e-1/plan.json", plan.to_json())
    assert export(theirs / "results", "e-1", None, tmp_path / "run.zip") == {EVALUATION: 1, TRAINING: 1}
    assert export(theirs / "results", "a-1", None, tmp_path / "other.zip") == {RESULT: 1}
    assert export(theirs / "results", "*", "lary-v1", tmp_path / "protocol.zip") == {RESULT: 1}


# --- trainings and studies --------------------------------------------------------------------


def said(root: Path, **options: Any) -> str:
    out = io.StringIO()
    print_study(root, "demo", out, **options)
    return out.getvalue()


def test_a_study_is_the_same_elsewhere(theirs: Path, packed: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    import_results(packed, mine / "results")
    assert said(mine, as_json=True) == said(theirs, as_json=True)
    assert "0.6250" in said(mine)
    assert list(trained_models(mine / "trained")) == [], "what was measured, and no model"
    (study,) = load_studies(mine)
    assert study.name == "demo (imported from theirs.zip)"
    text = page(gather(mine / "results", mine / "runs"), 1, datetime.now(UTC), [study]).decode()
    assert "Study demo (imported from theirs.zip): two seeds" in text
    assert text.count("data:image/png") == 1


def test_a_study_that_was_made_here_goes_before(theirs: Path, packed: Path) -> None:
    """Its results too, however old. On the page both stand, each under an anchor of its own."""
    folder = import_results(packed, theirs / "results").folder
    assert load_study(theirs, "demo").home == theirs
    assert [study.home for study in load_studies(theirs)] == [theirs, folder]
    text = page(gather(theirs / "results", theirs / "runs"), 1, datetime.now(UTC), load_studies(theirs)).decode()
    assert text.count('id="study-demo"') == 1
    assert text.count(f'id="study-demo-{folder.name}"') == 1
    record_path(theirs / "studies", "demo").unlink()
    assert load_study(theirs, "demo").home == folder
    with pytest.raises(ContractError, match=r"no planned study 'dmo' \(did you mean demo\?\)"):
        load_study(theirs, "dmo")


# --- files that are none ----------------------------------------------------------------------


def changed(packed: Path, to: Path, change: Callable[[dict[str, bytes]], None]) -> Path:
    """The file again with other contents, and an index that fits."""
    import hashlib

    with zipfile.ZipFile(packed) as archive:
        files = {name: archive.read(name) for name in archive.namelist() if name != INDEX}
    change(files)
    entries = {
        name: {"size": len(data), "sha256": hashlib.sha256(data).hexdigest(), "modified": 1e9}
        for name, data in files.items()
    }
    with zipfile.ZipFile(to, "w") as archive:
        archive.writestr(INDEX, json.dumps({"version": 2, "files": entries}))
        for name, data in files.items():
            archive.writestr(name, data)
    return to


def documents(packed: Path) -> list[str]:
    """One of each kind."""
    with zipfile.ZipFile(packed) as archive:
        found = [(document_of(name), name) for name in archive.namelist()]
    return list({belongs[0]: name for belongs, name in found if belongs is not None and belongs[1] == name}.values())


def test_a_document_that_says_it_is_of_another_folder(packed: Path, tmp_path: Path) -> None:
    """Of each kind, under each part of its name that may be another."""
    for nth, name in enumerate(documents(packed)):
        parts = name.split("/")
        for at in (1,) if parts[0] in ("studies", "trained") else (1, 2, 3) if parts[0] == "evaluate" else (0, 1, 2):
            other = parts[at].replace(".json", "") + "x" + (".json" if parts[at].endswith(".json") else "")
            moved = "/".join([*parts[:at], other, *parts[at + 1 :]])
            file = changed(
                packed, tmp_path / f"{nth}-{at}.zip", lambda files, old=name, new=moved: files.update({new: files[old]})
            )
            with pytest.raises(ContractError, match=": is of "):
                import_results(file, tmp_path / "mine/results")
    assert list((tmp_path / "mine").rglob("*")) == [tmp_path / "mine/results"]


def test_a_document_that_is_none_of_its_kind(packed: Path, tmp_path: Path) -> None:
    names = documents(packed)
    for nth, name in enumerate(names):
        for content in (b"{}", b"[]", b"", b"\xff", b'{"version": 9}'):
            file = changed(packed, tmp_path / "x.zip", lambda files, old=name, new=content: files.update({old: new}))
            with pytest.raises(ContractError, match=r"x\.zip"):
                import_results(file, tmp_path / f"mine{nth}/results")
    assert len(names) == 4


@pytest.mark.parametrize(
    "name",
    [
        *("studies/demo", "studies/x/demo.json", "trained/KEY/other/training.json", "trained/KEY/checkpoint/a/b"),
        *("trained/training.json", "evaluate/a/b/evaluation.json", "evaluate/a/b/c/d/e/f/g", "studies/../a.json"),
        *("trained/../checkpoint/training.json", "evaluate/a/b/c/x.partial", "studies/.a.json", "studies/a .json/"),
    ],
)
def test_names_of_no_kind(name: str) -> None:
    assert document_of(name) is None


def test_files_without_their_document(packed: Path, tmp_path: Path) -> None:
    for name in documents(packed):
        if not name.startswith("studies"):
            file = changed(
                packed, tmp_path / "x.zip", lambda files, old=name: files.update({old + "x": files.pop(old)})
            )
            with pytest.raises(ContractError, match="without their document"):
                import_results(file, tmp_path / "mine/results")


def test_an_older_version_says_that_it_does_not_know(packed: Path, theirs: Path, tmp_path: Path) -> None:
    """Results alone are what they were: a version that knows nothing else takes them."""
    export(theirs / "results", "a-1", None, tmp_path / "results.zip")
    for file, version in ((packed, 2), (tmp_path / "results.zip", 1)):
        with zipfile.ZipFile(file) as archive:
            assert json.loads(archive.read(INDEX))["version"] == version


@pytest.mark.parametrize(
    "name", ["results", "results/a-1", "results/a-1/lam", "results/evaluate/world", "trained", "studies"]
)
def test_what_may_not_be_listed_is_not_left_out_in_silence(
    theirs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Root may list everything, so the system's word is given here."""
    real = os.scandir

    def scandir(path: Any = ".") -> Any:
        if Path(path) == theirs / name:
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(ContractError, match=f"{name}: cannot be read: Permission denied"):
        export(theirs / "results", "*", None, tmp_path / "out.zip")
    assert not (tmp_path / "out.zip").exists()
    if name == "trained":
        assert next(trained_rows(theirs / name))["key"] == "-"
    else:
        broken: list[str] = []
        list(read_results(theirs / "results", broken=broken))
        list(read_evaluations(theirs / "results", broken))
        assert bool(broken) == (name != "studies")
