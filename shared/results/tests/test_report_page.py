"""The report: what stands in it, that nothing in it runs or loads anything else, and how it is read."""

import base64
import hashlib
import json
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from lary_orch.catalog.protocol_cards import protocol_titles
from lary_orch.cli import report as command
from lary_orch.workspace import Workspace
from lary_results.report import confusion
from lary_results.report.evidence import gather
from lary_results.report.markup import Html, el, join, slug, text
from lary_results.report.page import page
from lary_schema.atomic import publish_text
from lary_schema.base import ContractError
from lary_schema.events import Failed, Finished, Started, to_line
from lary_schema.locks import exclusive
from lary_schema.results import SplitScore

Write = Callable[..., Path]
Made = Callable[..., Any]
WHEN = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)
EVIL = "<script>alert(\"1\")</script> & 'x'"
PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture
def made(workspace: Workspace, read_page: Callable[[bytes], Any]) -> Made:
    """The page of the workspace as it is when called."""
    return lambda mib=12.0, **of: read_page(
        page(gather(workspace.results, workspace.runs, titles=protocol_titles(), **of), mib, WHEN)
    )


def matrix_file(folder: Path, labels: list[str], counts: list[list[int]]) -> None:
    document = {"labels": labels, "rows": "truth", "columns": "prediction", "matrix": counts}
    publish_text(folder / "confusion_matrix.json", json.dumps(document))


# --- markup -----------------------------------------------------------------------------------


def test_markup_escapes_text_and_attributes() -> None:
    assert el("p", EVIL, title=EVIL) == (
        '<p title="&lt;script&gt;alert(&quot;1&quot;)&lt;/script&gt; &amp; &#x27;x&#x27;">'
        "&lt;script&gt;alert(&quot;1&quot;)&lt;/script&gt; &amp; &#x27;x&#x27;</p>"
    )
    assert el("p", Html("<b>"), None, ["a", [1, 2.5]]) == "<p><b>a12.5</p>"
    assert el("td", 0, class_="n", data_v=0, hidden=False, open_=True) == '<td class="n" data-v="0" open>0</td>'
    assert join(el("br"), el("rect", x=1)) == '<br><rect x="1"/>'
    assert text("a\x00b\ud800c\x1bd") == "a\\x00b\\ud800c\\x1bd"
    assert slug("d", "lary-v1", "a b/<c>") == "d-lary-v1-a-b-c"


# --- the whole page ---------------------------------------------------------------------------


def test_an_empty_workspace_has_a_page_that_says_so(made: Made) -> None:
    document = made()
    assert "No results in" in document.one("main").text
    assert document.one("section", id="failures").text == "Failures None known: no run was planned in this workspace."


def test_the_policy_allows_this_script_alone(workspace: Workspace, write: Write, made: Made) -> None:
    write("frame-diff", "toy", {"val": 0.5})
    document = made()
    policy = document.one("meta", http_equiv="Content-Security-Policy").attributes["content"]
    script = "".join(document.one("script").children)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy
    assert not re.search(r"https?:|//[a-z]|fetch\(|XMLHttp|innerHTML|eval", script.replace("// ", ""))


def test_the_leaderboard(workspace: Workspace, write: Write, made: Made) -> None:
    write("vjepa2", "human_1st", {"val": 0.79}, rows={"train": 456_678, "val": 195_719})
    write("frame-diff", "human_1st", {"val": 0.19}, failed=2)
    write("frame-diff", "calvin", {"val": 0.9}, metric="mse")
    write("frame-diff", "human_1st", {"val": 0.2}, control="shuffled")
    board = made().one("table", "board")
    header, *rows = board.rows()
    assert header == ["model", "human_1st/ val top-1 % ↑", "calvin/ val MSE ↓"]
    assert rows == [
        ["vjepa2 lary-v1", "79.0 [74.0, 84.0] published 80.35", "-"],
        ["frame-diff lary-v1", "19.0 *‡ [14.0, 24.0]", "0.900 [0.850, 0.950]"],
        ["chance", "12.5", "-"],
        ["most frequent class, mean action", "25.0", "1.020"],
        ["shuffled control of frame-diff lary-v1", "20.0", "-"],
    ]
    assert [a.text for a in board.all("a", "best")] == ["79.0", "0.900"]
    assert [th.attributes["data-best"] for th in board.all("th", scope="col")] == ["asc", "desc", "asc"]
    body = board.one("tbody")
    assert [td.attributes.get("data-v") for td in body.all("td")] == ["0.79", None, "0.19", "0.9"]


def test_reasons_and_averages_in_the_leaderboard(workspace: Workspace, write: Write, made: Made) -> None:
    for dataset, value in (("human_1st", 0.2), ("robot_1st", 0.3)):
        write("univla", dataset, {"val": value}, variant="corrected")
    document = made()
    board = document.one("table", "board")
    assert board.rows()[1] == [
        "univla corrected", "20.0 ‡ a,b [15.0, 25.0]", "30.0 ‡ a,b [25.0, 35.0]", "25.0 a,b"
    ]  # fmt: skip
    assert "another variant" in board.all("sup")[0].attributes["title"]
    notes = [li.text for li in document.one("ul", "notes").all("li")]
    assert any(note.startswith("a another variant") for note in notes)
    assert any(note.startswith("b other rows") for note in notes)


def test_every_protocol_and_dataset_has_its_section(workspace: Workspace, write: Write, made: Made) -> None:
    write("frame-diff", "toy", {"val": 0.5})
    write("frame-diff", "arm", {"seen_val": 0.5, "unseen": 0.7}, metric="mse", protocol="smoke")
    document = made()
    links = [a.attributes["href"] for a in document.one("nav").all("a")]
    assert links == ["#p-lary-v1", "#d-lary-v1-toy", "#p-smoke", "#d-smoke-arm", "#failures", "#provenance"]
    arm = document.one("section", id="d-smoke-arm")
    assert [h.text for h in arm.one("div", "figures").all("h4")] == ["arm/seen_val MSE ↓", "arm/unseen MSE ↓"]
    assert not made(protocol="smoke").all("section", id="d-lary-v1-toy")
    assert "No results" in made(run="other").one("main").text


def test_names_from_outside_are_text(workspace: Workspace, write: Write, made: Made) -> None:
    folder = write("frame-diff", "toy", {"val": 0.5}, device=EVIL, libraries={EVIL: EVIL}, classes=(EVIL, "b"))
    matrix_file(folder, [EVIL, "b"], [[1, 2], [0, 3]])
    publish_text(workspace.results / "r/m/d/p/result.json", json.dumps({"version": EVIL, EVIL: 1}))
    large = write("pixels", "toy", {"val": 0.4})
    matrix_file(large, [f"{EVIL}{i}" for i in range(30)], [[int(r == c) for c in range(30)] for r in range(30)])
    document = made()
    assert EVIL in document.one("table", "heat").text
    assert EVIL in document.one("section", id="failures").text
    drawing = next(svg for svg in document.all("svg") if "data-cells" in svg.attributes)
    cells = json.loads(drawing.attributes["data-cells"])
    assert cells["labels"][7] == f"{EVIL}7"
    assert cells["rows"][7] == [7, 1]


# --- bars -------------------------------------------------------------------------------------


def test_bars_stand_where_the_numbers_are(workspace: Workspace, write: Write, made: Made) -> None:
    write("vjepa2", "human_1st", {"val": 0.6}, rows={"train": 456_678, "val": 195_719})
    write("frame-diff", "human_1st", {"val": 0.7})
    figure = made().one("div", "bars")
    assert [row.one("b").text for row in figure.all("div", "bar-row")] == ["70.0", "60.0"]
    second = figure.all("div", "bar-row")[1]
    assert second.one("rect", "bar").attributes["width"] == "60.00%"
    whisker = second.all("line", "whisker")[0].attributes
    assert (whisker["x1"], whisker["x2"]) == ("55.00%", "65.00%")
    assert second.one("line", "floor").attributes["x1"] == "25.00%"
    assert second.one("line", "chance").attributes["x1"] == "12.50%"
    assert second.one("circle", "published").attributes["cx"] == "80.35%"
    assert not figure.all("div", "bar-row")[0].all("circle")


def test_a_diverged_error_does_not_flatten_the_others(workspace: Workspace, write: Write, made: Made) -> None:
    write("frame-diff", "arm", {"val": 0.51}, metric="mse")
    write("pixels", "arm", {"val": 57.0}, metric="mse")
    write("pixels", "arm", {"val": 1.2}, metric="mse", control="shuffled")
    rows = made().one("div", "bars").all("div", "bar-row")
    assert [row.one("span", "name").text for row in rows] == ["frame-diff", "pixels", "overfitting (shuffled)"]
    assert rows[0].one("rect").attributes["width"] == "16.67%"
    assert rows[1].one("rect").attributes["width"] == "100.00%"
    assert rows[1].all("span", "clipped")
    assert not rows[0].all("span", "clipped")
    assert "control" in rows[2].one("rect").classes


def test_a_score_that_is_no_number_comes_last(workspace: Workspace, write: Write, made: Made) -> None:
    folder = write("a", "arm", {"val": 0.9}, metric="mse")
    publish_text(folder / "result.json", (folder / "result.json").read_text().replace("0.9,", "NaN,"))
    write("b", "arm", {"val": 0.51}, metric="mse")
    document = made()
    assert [row[0] for row in document.one("table", "board").one("tbody").rows()] == ["b lary-v1", "a lary-v1"]
    assert [td.attributes["data-v"] for td in document.one("table", "board").one("tbody").all("td")] == ["0.51", ""]
    rows = document.one("div", "bars").all("div", "bar-row")
    assert [row.one("b").text for row in rows] == ["0.510", "nan"]
    assert rows[1].one("rect").attributes["width"] == "100.00%"
    assert rows[1].all("span", "clipped")
    assert rows[0].one("rect").attributes["width"] == f"{100 * 0.51 / (1.05 * 1.02):.2f}%"


# --- tables -----------------------------------------------------------------------------------


def test_all_scores_of_a_dataset(workspace: Workspace, write: Write, made: Made) -> None:
    write("frame-diff", "arm", {"seen_val": 0.5, "unseen": 0.7}, metric="mse", failed=2, head="dit")
    write("pixels", "arm", {"seen_val": 0.4}, metric="mse")
    section = made().one("section", id="d-lary-v1-arm")
    scores, errors = (table for table in section.all("table") if "board" not in table.classes)
    assert [row[:4] + row[-3:] for row in scores.rows()[1:]] == [
        ["pixels lary-v1", "seen_val", "0.400", "0.350 to 0.450", "50", "0", "0"],
        ["frame-diff lary-v1, dit", "seen_val", "0.500", "0.450 to 0.550", "48", "2", "0"],
        ["frame-diff lary-v1, dit", "unseen", "0.700", "0.650 to 0.750", "48", "2", "0"],
    ]
    assert scores.rows()[0][4:8] == ["chosen", "first epoch", "last epoch", "R²"]
    assert scores.rows()[1][4:8] == ["epoch 3", "0.380", "0.390", "0.600"]
    assert errors.rows() == [
        ["model", "split", "position group"],
        ["pixels lary-v1", "seen_val", "0.200"],
        ["frame-diff lary-v1, dit", "seen_val", "0.250"],
        ["frame-diff lary-v1, dit", "unseen", "0.350"],
    ]


def test_what_newer_probes_tell_is_shown_as_it_is(workspace: Workspace, write: Write, made: Made) -> None:
    folder = write("frame-diff", "arm", {"unseen": 0.5}, metric="mse")
    if "unknown_robots" not in SplitScore.model_fields:
        pytest.skip("this schema has no field that the table does not know")
    document = json.loads((folder / "result.json").read_text())
    document["splits"]["unseen"]["unknown_robots"] = {"nan": 7, EVIL: 2}
    publish_text(folder / "result.json", json.dumps(document))
    section = made().one("section", id="d-lary-v1-arm")
    assert section.all("table")[0].rows()[0][-1] == "clamped"
    (more,) = [one for one in section.all("details") if one.one("summary").text == "Further figures"]
    assert [li.text for li in more.all("li")] == [f"frame-diff lary-v1 on unseen: unknown robots: nan 7, {EVIL} 2"]


def test_warnings_of_probes_and_differences_from_the_best(
    workspace: Workspace, write: Write, made: Made, write_rows: Any
) -> None:
    right = [float(n % 3 > 0) for n in range(50)]
    for model, scores in (("good", [1.0] * 50), ("poor", right)):
        write_rows(write(model, "toy", {"val": 0.5}, warnings=("few rows",), recipe={"epochs": 2}), "val", scores)
    write("old", "toy", {"val": 0.4}, recipe={"epochs": 2})
    document = made()
    warnings = document.one("ul", "warnings").all("li")
    assert [li.text for li in warnings] == ["few rows good, lary-v1 on val; poor, lary-v1 on val"]
    differences = document.one("details", "differences")
    assert differences.one("summary").text == "Against the best of each column: 1 of 1 differences exclude 0"
    rows = differences.one("table").rows()
    assert rows[0][:4] == ["column", "a: the best", "b", "difference"]
    assert rows[1][:4] == ["toy/val", "good lary-v1", "poor lary-v1", "+34.0"]
    assert rows[1][5:] == ["a is better", "50", "rows taken as independent"]
    assert rows[2][3:] == ["-", "-", "not compared", "-", "-"]
    assert "old (lary-v1) on toy/val: old: no scores of single rows" in differences.text


def test_other_recipes_have_sections_of_their_own(workspace: Workspace, write: Write, made: Made) -> None:
    for model, epochs in (("a", 15), ("b", 15), ("c", 2)):
        write(model, "toy", {"val": 0.5}, recipe={"epochs": epochs})
    document = made()
    assert [len(board.one("tbody").all("tr")) for board in document.all("table", "board")] == [2, 1]
    titles = [h.text for h in document.one("main").all("h2")]
    assert titles[0] == "Protocol lary-v1: LARYBench, to the letter"
    assert titles[1].startswith("Protocol lary-v1, another recipe (")
    assert titles[1].endswith("): epochs 2 (above: 15)")


def test_forty_results_with_failures_and_numbers_that_are_none(workspace: Workspace, write: Write, made: Made) -> None:
    for n in range(20):
        metric = "mse" if n % 2 else "top1"
        for control in ("none", "shuffled"):
            folder = write(
                f"m{n}", f"set{n % 4}", {"val": 0.5, "test": 0.4}, metric=metric, control=control, failed=n % 5
            )
            document = json.loads((folder / "result.json").read_text())
            if n % 3 == 0:
                document["splits"]["val"] |= {"value": None, "floor": None, "std": None, "chance": None}
                document["splits"]["val"]["interval"] |= {"low": None, "high": None}
            publish_text(folder / "result.json", json.dumps(document))
    document = made()
    assert len(document.one("table", "board").one("tbody").all("tr")) == 20
    assert not [rect for rect in document.all("rect") + document.all("line") if "nan" in str(rect.attributes)]


# --- confusion matrices -----------------------------------------------------------------------


def test_a_small_matrix_is_a_table_with_truth_in_rows(workspace: Workspace, write: Write, made: Made) -> None:
    folder = write("frame-diff", "toy", {"val": 0.5})
    matrix_file(folder, ["up", "down"], [[3, 1], [0, 0]])
    heat = made().one("table", "heat")
    assert heat.rows() == [["truth ↓ prediction →", "0", "1"], ["0 up", "3", "1"], ["1 down", "0", "0"]]
    first, second, *_ = heat.all("td")
    assert first.attributes["style"] == "--s:75%"
    assert second.attributes["title"] == "up taken for down: 1 (25.0 %)"


def test_each_split_has_its_own_matrix(workspace: Workspace, write: Write, made: Made) -> None:
    folder = write("frame-diff", "toy", {"seen": 0.9, "unseen": 0.1})
    matrix_file(folder / "seen", ["up", "down"], [[9, 1], [0, 8]])
    matrix_file(folder / "unseen", ["up", "down"], [[1, 6], [5, 2]])
    found = [heat.rows()[1] for heat in made().all("table", "heat")]
    assert found == [["0 up", "9", "1"], ["0 up", "1", "6"]]


def cells_of(path: str) -> Iterator[tuple[int, int]]:
    """(row, column) of the cells that a path covers."""
    for column, row, width, back in re.findall(r"M(\d+) (\d+)h(\d+)v1h-(\d+)z", path):
        assert width == back
        yield from ((int(row), int(column) + n) for n in range(int(width)))


def test_a_drawn_matrix_covers_each_cell_once_in_its_step() -> None:
    size = 40
    counts = [[(7 * r + 3 * c) % 5 if abs(r - c) < 9 else 0 for c in range(size)] for r in range(size)]
    counts[3] = [0] * size
    counts[4] = [1000 if c == 39 else 1 if c == 0 else 0 for c in range(size)]
    matrix = confusion.Matrix([str(n) for n in range(size)], counts)
    drawn = {cell: step for step, path in confusion._paths(matrix).items() for cell in cells_of(path)}
    assert sum(len(list(cells_of(path))) for path in confusion._paths(matrix).values()) == len(drawn)
    assert set(drawn) == {(r, c) for r in range(size) for c in range(size) if counts[r][c]}
    assert (drawn[4, 39], drawn[4, 0]) == (8, 0)
    for (row, column), step in drawn.items():
        share = matrix.share(row, column)
        assert confusion.STEPS[step] <= share < [*confusion.STEPS, 2.0][step + 1]


def test_a_large_matrix_names_its_mistakes(workspace: Workspace, write: Write, made: Made) -> None:
    size = 123
    counts = [[10 if r == c else 0 for c in range(size)] for r in range(size)]
    counts[5][7], counts[5][8], counts[9] = 30, 1, [0] * size
    matrix_file(write("frame-diff", "toy", {"val": 0.5}), [f"c{n}" for n in range(size)], counts)
    shown = made().one("div", "matrix")
    mistakes, classes = shown.all("table")
    assert mistakes.rows()[1:] == [["c5", "c7", "30", "73.2"], ["c5", "c8", "1", "2.4"]]
    assert classes.rows()[1] == ["c5", "5", "41", "24.4", "100.0", "c7 (30)"]
    assert ["c7", "7", "10", "100.0", "25.0", "-"] in classes.rows()
    assert shown.one("details").one("summary").text == "all 123 classes (1 have no row here)"
    assert len(shown.all("path", "s8")) == 1


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        '{"rows": "truth", "labels": 1}',
        '{"rows": "truth", "labels": ["a"], "matrix": [[1, 2]]}',
        '{"rows": "truth", "labels": ["a"], "matrix": [[-1]]}',
        '{"rows": "truth", "labels": ["a"], "matrix": [["1"]]}',
        '{"labels": ["a"], "matrix": [[1]]}',
    ],
)
def test_a_broken_matrix_costs_nothing_else(workspace: Workspace, write: Write, content: str, made: Made) -> None:
    folder = write("frame-diff", "toy", {"val": 0.5})
    publish_text(folder / "confusion_matrix.json", content)
    document = made()
    found = document.one("section", id="d-lary-v1-toy").all("p", "muted")
    assert any(str(folder / "confusion_matrix.json") in p.text for p in found)
    assert document.one("table", "board")


# --- trajectories -----------------------------------------------------------------------------


def pictures(folder: Path, split: str, size: int, count: int = 4) -> list[bytes]:
    contents = [PNG + bytes([n]) * (size - len(PNG)) for n in range(count)]
    for n, content in enumerate(contents):
        path = folder / f"eval_vis/{split}/sample_{n}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return contents


def images(document: Any) -> list[bytes]:
    return [base64.b64decode(img.attributes["src"].partition(",")[2]) for img in document.all("img")]


def test_trajectories_are_in_the_page(workspace: Workspace, write: Write, made: Made) -> None:
    folder = write("frame-diff", "arm", {"seen_val": 0.5, "unseen": 0.7}, metric="mse")
    seen, unseen = pictures(folder, "seen_val", 100), pictures(folder, "unseen", 90)
    (folder / "eval_vis/unseen/sample_9.png").write_bytes(b"<svg onload=alert(1)>")
    control = write("frame-diff", "arm", {"unseen": 1.5}, metric="mse", control="shuffled")
    pictures(control, "unseen", 80)
    document = made()
    assert images(document) == [*seen, *unseen]
    assert "1 more in" in document.text


def test_the_best_and_the_worst_rows_fit_first(workspace: Workspace, write: Write, made: Made) -> None:
    folders = [write(model, "arm", {"val": 0.5}, metric="mse") for model in ("a", "b")]
    for folder in folders:
        pictures(folder, "val", 1 << 10)
    document = made(4.5 / 1024)
    assert [content[-1] for content in images(document)] == [0, 3, 0, 3]
    assert document.text.count("2 more in") == 2
    assert images(made(0)) == []


def test_wide_pictures_stay_readable(workspace: Workspace, write: Write, made: Made) -> None:
    folder = write("a", "arm", {"val": 0.5}, metric="mse")
    pictures(folder, "val", 100, count=2)
    for n, (width, height) in enumerate([(930, 500), (620, 870)]):
        header = PNG + b"\0\0\0\rIHDR" + width.to_bytes(4, "big") + height.to_bytes(4, "big")
        (folder / f"eval_vis/val/sample_{n}.png").write_bytes(header)
    assert [img.classes for img in made().all("img")] == [["wide"], []]


# --- failures ---------------------------------------------------------------------------------


def log(workspace: Workspace, run: str, job: str, *events: Any, attempt: int = 1, stderr: str = "") -> None:
    logs = workspace.run(run).root / "logs"
    publish_text(logs / f"{job}.{attempt}.events.jsonl", "".join(to_line(event) for event in events))
    publish_text(logs / f"{job}.{attempt}.stderr.log", stderr)


def plan(workspace: Workspace, run: str, **fields: Any) -> None:
    document = {"run": run, "protocol": "smoke", "latents": str(workspace.latents), "stores": [], "probes": []}
    publish_text(workspace.run(run).plan, json.dumps(document | {"problems": []} | fields))


PROBE = {
    "id": "classify.d.m.v", "model": "m", "variant": "v", "dataset": "d", "control": "none", "fingerprint": "f",
    "result": "/nowhere/result.json",
}  # fmt: skip


def test_jobs_that_ended_badly(workspace: Workspace, made: Made) -> None:
    plan(workspace, "smoke-1", probes=[PROBE], problems=[f"model vjepa2: weights {EVIL}"])
    started = Started(job="x", total=1, device="cpu", pid=1)
    log(workspace, "smoke-1", "good.a", started, Finished(job="x", done=1, per_second=1.0))
    log(workspace, "smoke-1", "bad.b", started, Failed(job="x", code=3, message=f"40 rows {EVIL}"), stderr=f"z\n{EVIL}")
    log(workspace, "smoke-1", "killed.c", started)
    log(workspace, "smoke-1", "again.d", started)
    log(workspace, "smoke-1", "again.d", started, Finished(job="x", done=1, per_second=1.0), attempt=2)
    failures = made().one("section", id="failures")
    bad, killed = failures.all("div", "card")
    assert bad.one("b").text == "bad.b"
    assert "exit code 3" in bad.text
    assert f"40 rows {EVIL}" in bad.text
    assert bad.one("details").one("pre").text == f"z {EVIL}"
    assert killed.text == "killed.c no end was recorded: killed, crashed, or running elsewhere"
    assert failures.all("ul")[0].text == f"model vjepa2: weights {EVIL}"


def test_a_finished_run_has_no_bad_endings(workspace: Workspace, made: Made) -> None:
    plan(workspace, "smoke-1")
    log(workspace, "smoke-1", "bad.b", Failed(job="x", code=3, message="of an earlier call"))
    shown = made().one("section", id="failures").text
    assert "earlier call" not in shown
    assert "None: every planned job was done" in shown


def test_a_run_under_way_is_no_failure(workspace: Workspace, made: Made) -> None:
    plan(workspace, "smoke-1", probes=[PROBE])
    log(workspace, "smoke-1", "classify.x", Started(job="x", total=1, device="cpu", pid=1))
    with exclusive(workspace.run("smoke-1").lock, "busy"):
        shown = made().one("section", id="failures").text
    assert "classify.x under way, or killed" in shown
    assert "smoke-1 under way 0 of 0 0 of 1" in shown
    assert "smoke-1 incomplete" in made().one("section", id="failures").text


def test_what_is_left_to_do(workspace: Workspace, made: Made) -> None:
    store = {
        "model": "m", "variant": "v", "dataset": "d", "split": "val", "path": "d/val/m/x.zarr", "rows": 9, "shards": 3,
        "csv": "/nowhere.csv", "columns": ["video_path"],
    }  # fmt: skip
    plan(workspace, "smoke-1", stores=[store], probes=[PROBE])
    shown = made().one("section", id="failures").text
    assert "None so far; what is left to do stands below." in shown
    assert "smoke-1 incomplete 0 of 1 0 of 1" in shown
    assert "smoke-1: latents of m (v) on d/val: 0 of 3 shards" in shown
    assert "smoke-1: probe classify.d.m.v" in shown


def test_failed_rows_are_counted_and_listed(workspace: Workspace, tmp_path: Path, made: Made) -> None:
    csv = tmp_path / "val.csv"
    csv.write_text(f"video_path\na.mp4\n{EVIL.replace(',', '')}\n".replace('"', ""))
    store = {
        "model": "m", "variant": "v", "dataset": "d", "split": "val", "path": "d/val/m/x.zarr", "rows": 2, "shards": 1,
        "csv": str(csv), "columns": ["video_path"],
    }  # fmt: skip
    plan(workspace, "smoke-1", stores=[store])
    marker = {
        "shard": 0, "start": 0, "stop": 2, "batch_size": 1, "device": "cpu", "files": {},
        "failures": [{"row": 1, "reason": "missing_file", "detail": "gone"}],
    }  # fmt: skip
    publish_text(workspace.latents / "d/val/m/x.zarr/done/00000.json", json.dumps(marker))
    failures = made().one("section", id="failures")
    counts, rows, runs = failures.all("table")
    assert counts.rows()[1] == [
        "d",
        "val",
        "m",
        "v",
        "missing_file",
        "put the file there, then run the same command with --retry-failed",
        "1",
    ]
    assert rows.rows()[1][4:] == ["1", "missing_file", EVIL.replace('"', ""), "gone"]
    assert runs.rows()[1] == ["smoke-1", "done", "1 of 1", "0 of 0", "1", "0"]
    csv.unlink()
    assert "failed rows of run smoke-1" in made().one("section", id="failures").text


def test_a_broken_plan_or_result_is_told(workspace: Workspace, write: Write, made: Made) -> None:
    write("frame-diff", "toy", {"val": 0.5})
    publish_text(workspace.results / "r/m/d/p/result.json", "{")
    publish_text(workspace.run("bad").plan, "{}")
    document = made()
    assert "2 files could not be read" in invoke(workspace).stderr
    found = document.one("section", id="failures").all("pre")
    assert len(found) == 2
    assert "result.json" in found[0].text
    assert "plan.json" in found[1].text
    assert document.one("table", "board")


# --- provenance -------------------------------------------------------------------------------


def test_every_cell_leads_to_what_it_was_made_from(workspace: Workspace, write: Write, made: Made) -> None:
    one = write("frame-diff", "toy", {"seen": 0.5, "unseen": 0.4}, failed=1, image="lary/one:1")
    two = write("pixels", "toy", {"seen": 0.3}, image="lary/two:1", csv="d7")
    document = made()
    links = [a.attributes["href"] for a in document.one("table", "board").one("tbody").all("a")]
    assert links[0] == links[1] != links[2]
    first, second = (document.one("div", id=link[1:]) for link in (links[0], links[2]))
    assert str(one / "result.json") in first.text
    assert str(two / "result.json") in second.text
    assert [row[0] for row in first.one("table").rows()] == ["split", "train", "seen", "unseen"]
    assert first.one("table").rows()[2] == [
        "seen",
        "49 used, 1 failed, 0 clamped",
        "lary/one:1 sha256:d1",
        "c0" * 32,
        f"model {'ab' * 32}",
        "c5" * 32,
        f"toy/seen/frame-diff/store.zarr {'f1' * 32}",
    ]
    assert first.one("table").rows()[1][1] == "100 used, 1 failed, 0 clamped"
    assert "d7" * 32 in second.text
    facts = dict(zip((d.text for d in first.all("dt")), (d.text for d in first.all("dd")), strict=True))
    assert facts["probe code sha256"] == "0e" * 32
    assert facts["code revision"] == "abc"
    assert facts["libraries"] == "torch 2"


# --- the command ------------------------------------------------------------------------------


def invoke(workspace: Workspace, *arguments: str) -> Any:
    return CliRunner().invoke(command.command, [*arguments, "--workspace", str(workspace.root)])


def test_the_command_writes_the_page(workspace: Workspace, write: Write, tmp_path: Path, read_page: Any) -> None:
    write("frame-diff", "toy", {"val": 0.5})
    done = invoke(workspace)
    assert done.exit_code == 0
    assert done.stdout.startswith(f"{workspace.root / 'report.html'}: ")
    read_page((workspace.root / "report.html").read_bytes())
    other = tmp_path / "deep/er.html"
    assert invoke(workspace, "--out", str(other), "--protocol", "lary-v1").exit_code == 0
    assert "frame-diff" in other.read_text()


@pytest.mark.parametrize(
    "arguments", [("--run", "nope"), ("--protocol", "nope"), ("--run", "run-1", "--protocol", "x")]
)
def test_a_page_of_nothing_is_refused_and_the_old_one_stays(
    workspace: Workspace, write: Write, arguments: tuple[str, ...]
) -> None:
    write("frame-diff", "toy", {"val": 0.5})
    target = workspace.root / "report.html"
    for content in (None, "a good page"):
        if content is not None:
            target.write_text(content)
        caught = invoke(workspace, *arguments).exception
        assert isinstance(caught, ContractError)
        assert caught.exit_code == 2
        assert "nope" in str(caught) or "protocol 'x'" in str(caught)
        assert "there are results of runs run-1" in str(caught)
        assert (target.read_text() if target.exists() else None) == content


def test_an_empty_workspace_overwrites_no_page(workspace: Workspace) -> None:
    assert invoke(workspace).exit_code == 0, "the first page may say that there is nothing yet"
    page_before = (workspace.root / "report.html").read_bytes()
    caught = invoke(workspace).exception
    assert isinstance(caught, ContractError)
    assert "stays as it is" in str(caught)
    assert (workspace.root / "report.html").read_bytes() == page_before


@pytest.mark.parametrize("run", ["../elsewhere", "a/b", "..", ""])
def test_a_run_is_a_name(workspace: Workspace, run: str) -> None:
    caught = invoke(workspace, "--run", run).exception
    assert isinstance(caught, ContractError)
    assert "give the name of a run" in str(caught)


def test_a_path_that_cannot_be_written_is_named(workspace: Workspace, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    caught = invoke(workspace, "--out", str(tmp_path / "file/page.html")).exception
    assert isinstance(caught, ContractError)
    assert "give another file by --out" in str(caught)
