"""Published scores next to ours: where they may stand, the paper's averages, and `--against`."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from lary_orch.catalog.protocol_cards import protocol_titles
from lary_orch.cli import results
from lary_orch.workspace import Workspace
from lary_results import comparing, leaderboard, scores
from lary_results.averages import averages, misprint
from lary_results.files import read_results
from lary_results.published import FILE, published, tables
from lary_schema.base import ContractError, read_json

Write = Callable[..., Path]
HUMAN = {"train": 456_678, "val": 195_719}
ROBOT = {"train": 376_895, "val": 161_527}
REFERENCE = Path(__file__).parents[4] / "shared/reference/lary_v1.json"


@pytest.fixture(autouse=True)
def _paper_totals_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """What built-in cards know of released rows is left out, where a test does not say otherwise."""
    monkeypatch.setattr(comparing, "released_rows", lambda dataset: {})


def invoke(workspace: Workspace, *arguments: str) -> Result:
    return CliRunner().invoke(results.command, [*arguments, "--workspace", str(workspace.root)])


def text(workspace: Workspace) -> str:
    out = io.StringIO()
    leaderboard.show_all(scores.collect(read_results(workspace.results)), out, protocol_titles())
    return out.getvalue()


def only(workspace: Workspace) -> scores.Score:
    (score,) = scores.collect(read_results(workspace.results))
    return score


# --- what may be compared ---------------------------------------------------------------------


def test_a_comparable_score_has_the_published_one_beside_it(workspace: Workspace, write: Write) -> None:
    write("vjepa2", "human_1st", {"val": 0.79}, rows=HUMAN)
    assert only(workspace).published == pytest.approx(0.8035)
    assert only(workspace).differences == ()
    assert "79.0 [74.0, 84.0] (published 80.35)" in text(workspace)
    assert "arXiv 2604.11689" in text(workspace)
    assert "does not stand" not in text(workspace)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"variant": "corrected"}, "variant"),
        ({"protocol": "clean"}, "protocol"),
        ({"control": "shuffled"}, "control"),
        ({"rows": {"train": 1000, "val": 500}}, "rows"),
        ({"rows": HUMAN, "failed": 9000}, "rows"),
        ({"variant": "imported"}, "imported"),
        ({"values": {"test": 0.79}, "rows": {"train": 456_678, "test": 195_719}}, "other split"),
    ],
)
def test_each_difference_keeps_it_away(workspace: Workspace, write: Write, changed: Any, reason: str) -> None:
    fields = {"values": {"val": 0.79}, "rows": HUMAN} | changed
    write("vjepa2", "human_1st", **fields)
    assert only(workspace).differences == (reason,)
    assert only(workspace).published is None


@pytest.mark.parametrize(
    ("dataset", "split", "fields", "reasons"),
    [
        ("calvin", "val", {"head": "mlp", "target": "absolute"}, ()),
        ("calvin", "val", {"head": "dit", "target": "absolute"}, ("probe",)),
        ("calvin", "val", {"head": "mlp", "target": "relative"}, ("probe",)),
        ("agibotbeta", "unseen", {}, ("split",)),
    ],
)
def test_regressions(workspace: Workspace, write: Write, dataset: str, split: str, fields: Any, reasons: Any) -> None:
    # What is not evaluated on both its seen and unseen split has fewer rows than the paper's total.
    rows = {"train": 10 if dataset == "agibotbeta" else tables()["rows"][dataset] - 50, split: 50}
    write("vjepa2", dataset, {split: 0.3}, metric="mse", rows=rows, **fields)
    assert only(workspace).differences == reasons


def test_unreleased_data_is_never_compared(workspace: Workspace, write: Write) -> None:
    write("vjepa2", "libero", {"val": 0.79}, rows={"train": 19_455, "val": 6_485})
    assert only(workspace).differences == ("data",)
    assert "79.0 [74.0, 84.0] (a)" in text(workspace)
    assert "  a  the published data is unreleased" in text(workspace)


def test_a_few_lost_rows_do_not_matter(workspace: Workspace, write: Write) -> None:
    write("vjepa2", "human_1st", {"val": 0.79}, rows=HUMAN, failed=1000)
    assert only(workspace).differences == ()


@pytest.mark.parametrize(
    ("released", "train", "reasons"),
    [
        ({"val": 11_969}, 197_952, ()),
        ({"val": 12_100}, 197_952, ("rows",)),
        ({"val": 11_969, "train": 100_000}, 197_952, ("rows",)),
        ({"val": 11_969}, 5, ("rows",)),
    ],
)
def test_rows_of_the_released_splits_and_the_papers_total(
    workspace: Workspace, write: Write, monkeypatch: pytest.MonkeyPatch, released: Any, train: int, reasons: Any
) -> None:
    monkeypatch.setattr(comparing, "released_rows", lambda dataset: released)
    write("vjepa2", "calvin", {"val": 0.3}, metric="mse", rows={"train": train, "val": 11_969})
    assert only(workspace).differences == reasons


def test_reasons_are_footnotes_of_those_that_the_paper_has_alone(workspace: Workspace, write: Write) -> None:
    write("vjepa2", "human_1st", {"val": 0.79}, variant="corrected")
    write("frame-diff", "human_1st", {"val": 0.19}, variant="corrected")
    shown = text(workspace)
    assert "79.0 [74.0, 84.0] (a,b)" in shown
    assert "19.0 [14.0, 24.0]‡\n" in shown, "no letter: the paper has no such model"
    assert "  a  another variant" in shown
    assert "  b  other rows" in shown


def test_another_probe_has_its_own_column(workspace: Workspace, write: Write) -> None:
    for head, target, value in (("mlp", "absolute", 0.3), ("dit", "absolute", 0.2), ("mlp", "relative", 0.1)):
        write("vjepa2", "toy", {"val": value}, metric="mse", head=head, target=target)
    shown = text(workspace)
    titles = "toy/val MSE ↓  toy/val (dit) MSE ↓  toy/val (relative) MSE ↓"
    assert " ".join(shown.splitlines()[2].split()) == f"model variant {' '.join(titles.split())}"
    assert "0.300" in shown
    assert "0.200" in shown
    assert "0.100" in shown


# --- averages ---------------------------------------------------------------------------------


def test_averages_need_all_their_members(workspace: Workspace, write: Write) -> None:
    write("univla", "human_1st", {"val": 0.20}, rows=HUMAN)
    assert "average" not in text(workspace)
    write("univla", "robot_1st", {"val": 0.30}, rows=ROBOT)
    shown = text(workspace)
    assert "average of 2 tasks" in shown
    assert "average of 3 tasks" not in shown
    assert "25.0 (published 18.82)" in shown
    write("univla", "libero", {"val": 0.10}, rows={"train": 19_455, "val": 6_485})
    shown = text(workspace)
    assert "average of 3 tasks" in shown
    assert "20.0 (a)" in shown
    assert "univla: the paper prints 17.99 as its average of 3 tasks, its own row averages 18.75" in shown


def test_regression_averages_of_seen_and_unseen(workspace: Workspace, write: Write) -> None:
    for dataset in ("calvin", "vlabench"):
        write("vjepa2", dataset, {"val": 0.2}, metric="mse")
    for dataset in ("robocoin", "agibotbeta"):
        write("vjepa2", dataset, {"seen_val": 0.4, "unseen": 0.8}, metric="mse")
    lines = text(workspace).splitlines()
    assert lines[2].endswith("average of 4 sets, seen MSE ↓  average of 4 sets, unseen MSE ↓")
    assert lines[4].split()[-4:] == ["0.300", "(a,b)", "0.500", "(a,b)"]


def test_a_dataset_counts_once_in_an_average(workspace: Workspace, write: Write) -> None:
    for dataset, splits in (("calvin", {"val": 0.2, "unseen": 0.9}), ("vlabench", {"val": 0.2})):
        write("vjepa2", dataset, splits, metric="mse")
    for dataset in ("robocoin", "agibotbeta"):
        write("vjepa2", dataset, {"seen_val": 0.4}, metric="mse")
    found = scores.collect(read_results(workspace.results))
    assert [(a.title, a.value) for a in averages(found)] == [("average of 4 sets, seen", pytest.approx(0.3))]
    for dataset in ("robocoin", "agibotbeta"):
        write("vjepa2", dataset, {"unseen": 0.8}, metric="mse")
    found = scores.collect(read_results(workspace.results))
    assert averages(found)[1].value == pytest.approx(0.5)


def test_averages_do_not_mix_probes(workspace: Workspace, write: Write) -> None:
    for dataset in ("calvin", "vlabench", "robocoin", "agibotbeta"):
        write("vjepa2", dataset, {"val": 0.2, "unseen": 0.2}, metric="mse", head="dit", target="absolute")
    assert "average" not in text(workspace)


def test_the_one_misprint_of_the_paper() -> None:
    rows = [(name, model) for name in tables()["averages"] for model in tables()["classification"]]
    found = {key: mean for key in rows if (mean := misprint(*key)) is not None}
    assert found == {("average_3", "univla"): pytest.approx(0.18753, abs=1e-5)}


@pytest.mark.skipif(not REFERENCE.is_file(), reason=f"{REFERENCE} is not here")
def test_our_copy_is_the_reference() -> None:
    theirs = read_json(REFERENCE)
    assert {name: tables()[name] for name in ("classification", "regression")} == {
        name: theirs[name] for name in ("classification", "regression")
    }
    assert set(theirs["notes"]) <= set(tables()["notes"])


# --- --against --------------------------------------------------------------------------------


def test_within_and_outside_the_papers_scores(workspace: Workspace, write: Write) -> None:
    write("vjepa2", "human_1st", {"val": 0.79}, rows=HUMAN)
    write("lapa", "robot_1st", {"val": 0.2364}, rows=ROBOT)
    write("vjepa2", "robot_1st", {"val": 0.70}, rows=ROBOT, protocol="clean")
    near = invoke(workspace, "--against", str(FILE), "--tolerance", "0.0135")
    assert near.exit_code == 0
    assert "0 of 2 cells are outside" in near.stdout
    far = invoke(workspace, "--against", str(FILE), "--tolerance", "0.013")
    assert far.exit_code == 6
    assert "1 of 2 cells are outside" in far.stdout
    first = far.stdout.splitlines()[4]
    assert first == "vjepa2 (lary-v1) on human_1st/val top1, lary-v1  0.7900  0.8035     -0.0135  OUTSIDE"
    assert "not compared: vjepa2 (lary-v1) on robot_1st/val top1, clean: another protocol" in far.stdout


def test_an_error_above_the_published_one_is_outside_too(workspace: Workspace, write: Write) -> None:
    write("vjepa2", "calvin", {"val": 0.29}, metric="mse", rows={"train": 197_952, "val": 11_969})
    assert invoke(workspace, "--against", str(FILE), "--tolerance", "0.01").exit_code == 6
    assert invoke(workspace, "--against", str(FILE), "--tolerance", "0.02").exit_code == 0


def test_what_is_as_far_as_the_tolerance_is_within(workspace: Workspace, write: Write) -> None:
    assert 0.28 - 0.27 > 0.01, "in binary fractions"
    write("vjepa2", "calvin", {"val": 0.28}, metric="mse", rows={"train": 197_952, "val": 11_969})
    assert invoke(workspace, "--against", str(FILE), "--tolerance", "0.01").exit_code == 0


def test_the_comparison_for_programs(workspace: Workspace, write: Write) -> None:
    write("vjepa2", "human_1st", {"val": 0.79}, rows=HUMAN)
    write("vjepa2", "libero", {"val": 0.79})
    done = invoke(workspace, "--against", str(FILE), "--json")
    assert done.exit_code == 6
    made = json.loads(done.stdout)
    assert (made["outside"], made["tolerance"]) == (1, 0.01)
    (cell,) = made["compared"]
    assert (cell["model"], cell["dataset"], cell["ours"], cell["outside"]) == ("vjepa2", "human_1st", 0.79, True)
    assert cell["difference"] == pytest.approx(-0.0135)
    (apart,) = made["not_compared"]
    assert (apart["dataset"], len(apart["reasons"])) == ("libero", 2)


def test_nothing_to_compare_is_no_success(workspace: Workspace, write: Write) -> None:
    write("vjepa2", "human_1st", {"val": 0.79}, variant="corrected")
    caught = invoke(workspace, "--against", str(FILE)).exception
    assert isinstance(caught, ContractError)
    assert "none of the 1 scores here can be compared" in str(caught)
    assert "another variant" in str(caught)


def test_an_earlier_state_of_the_table(workspace: Workspace, write: Write, tmp_path: Path) -> None:
    saved = tmp_path / "before.json"
    write("frame-diff", "toy", {"val": 0.5})
    write("frame-diff", "toy", {"val": 0.1}, control="shuffled")
    write("pixels", "toy", {"val": 0.5})
    saved.write_text(invoke(workspace, "--json").stdout)
    write("frame-diff", "toy", {"val": 0.6})
    write("frame-diff", "toy", {"val": 0.9}, control="shuffled")
    far = invoke(workspace, "--against", str(saved), "--tolerance", "0.05")
    assert far.exit_code == 6
    assert "1 of 2 cells are outside" in far.stdout, "controls are not compared"
    assert invoke(workspace, "--against", str(saved), "--tolerance", "0.1").exit_code == 0


def test_rows_of_another_csv_are_not_compared(workspace: Workspace, write: Write, tmp_path: Path) -> None:
    saved = tmp_path / "before.json"
    write("frame-diff", "toy", {"val": 0.5})
    write("pixels", "toy", {"val": 0.5})
    write("pixels", "gone", {"val": 0.5})
    saved.write_text(invoke(workspace, "--json").stdout)
    write("frame-diff", "toy", {"val": 0.9}, csv="d6")
    for file in workspace.results.glob("*/*/gone/*/result.json"):
        file.unlink()
    done = invoke(workspace, "--against", str(saved))
    assert done.exit_code == 0
    assert "not compared: frame-diff (lary-v1) on toy/val top1, lary-v1: another CSV" in done.stdout
    assert "not here: lary-v1 pixels lary-v1 gone val top1 none" in done.stdout


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not JSON"),
        ("3", "neither published tables"),
        ('{"a": 1}', "neither published tables"),
        ('{"classification": []}', "classification: not an object"),
        ('{"classification": {"vjepa2": {"human_1st": "80"}}}', "vjepa2.human_1st: '80' is no number"),
        ("[3]", "entry 0: not an object"),
        ('[{"model": "x"}]', "entry 0: no protocol, variant"),
    ],
)
def test_a_file_of_another_kind_is_named(
    workspace: Workspace, write: Write, tmp_path: Path, content: str, message: str
) -> None:
    write("vjepa2", "human_1st", {"val": 0.79}, rows=HUMAN)
    file = tmp_path / "other.json"
    file.write_text(content)
    caught = invoke(workspace, "--against", str(file)).exception
    assert isinstance(caught, ContractError)
    assert str(file) in str(caught)
    assert message in str(caught)


def test_a_broken_result_is_told_and_costs_nothing_else(workspace: Workspace, write: Write, tmp_path: Path) -> None:
    write("frame-diff", "toy", {"val": 0.5})
    saved = tmp_path / "before.json"
    saved.write_text(invoke(workspace, "--json").stdout)
    broken = write("pixels", "toy", {"val": 0.5}) / "result.json"
    broken.write_text("{")
    for arguments in ((), ("--json",), ("--csv",), ("--against", str(saved))):
        done = invoke(workspace, *arguments)
        assert done.exit_code == 2
        assert "frame-diff" in done.stdout
        assert f"error: {broken}: not JSON" in done.stderr


def test_a_score_that_is_no_number_is_outside(workspace: Workspace, write: Write, tmp_path: Path) -> None:
    write("frame-diff", "toy", {"val": 0.5})
    saved = tmp_path / "before.json"
    saved.write_text(invoke(workspace, "--json").stdout.replace('"value": 0.5', '"value": NaN'))
    assert invoke(workspace, "--against", str(saved), "--tolerance", "100").exit_code == 6


def test_published_units() -> None:
    assert published("top1", "vjepa2", "human_1st") == pytest.approx(0.8035)
    assert published("mse", "vjepa2", "calvin") == 0.27
    assert published("mse", "vjepa2", "human_1st") is None
