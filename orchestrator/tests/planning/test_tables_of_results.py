"""What people read: the leaderboard, status, models, datasets, plan."""

import csv
import io
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from lary_orch.catalog.protocol_cards import load_protocol, protocol_titles
from lary_orch.cli import COMMANDS, datasets, models, options, plan, report, results, runs, status
from lary_orch.plan.files import write_job, write_plan
from lary_results import leaderboard, scores
from lary_results.files import read_results
from lary_schema.atomic import publish_text
from lary_schema.base import ContractError
from lary_terminal.tables import Table, plain, show, size_text

MINE = {
    "datasets": datasets,
    "models": models,
    "plan": plan,
    "report": report,
    "results": results,
    "runs": runs,
    "status": status,
}


def board(world: Any) -> str:
    found = scores.collect(read_results(world.workspace.results))
    out = io.StringIO()
    leaderboard.show_all(found, out, protocol_titles())
    return out.getvalue()


def invoke(module: Any, world: Any, *arguments: str) -> str:
    result = CliRunner().invoke(module.command, [*arguments, "--workspace", str(world.workspace.root)])
    if result.exception is not None:
        raise result.exception
    assert result.exit_code == 0
    return result.stdout


# --- leaderboard ------------------------------------------------------------------------------


def test_the_table_of_one_protocol(world: Any) -> None:
    world.toy(val=8)
    made = world.plan(("frame-diff", "pixels"), control=True)
    world.finish_probes(made, {"shuffled": 0.125})
    assert board(world) == (
        "protocol smoke: small probes for a first look; no scores to publish\n"
        "\n"
        "model                             variant    toy/val top-1 % ↑\n"
        "--------------------------------  ---------  -----------------\n"
        "frame-diff                        corrected  75.0 [70.0, 80.0]\n"
        "pixels                            corrected  75.0 [70.0, 80.0]\n"
        "--------------------------------  ---------  -----------------\n"
        "chance                                                    12.5\n"
        "most frequent class, mean action                          25.0\n"
        "shuffled control of frame-diff    corrected               12.5\n"
        "[ , ] is the 95 % interval: rows taken as independent.\n"
    )


def test_protocols_are_never_mixed(world: Any) -> None:
    world.toy()
    for name in ("smoke", "clean"):
        world.finish_probes(world.plan(protocol=load_protocol(name)))
    text = board(world)
    assert text.count("model  ") == 2
    assert text.index("protocol clean:") < text.index("protocol smoke:")


def test_failed_rows_are_marked(world: Any) -> None:
    world.toy(val=8)
    world.finish_probes(world.plan(), failed=3)
    text = board(world)
    assert "75.0 [70.0, 80.0]*" in text
    assert (
        "* frame-diff (corrected) on toy/val: 3 of 8 rows have no latent (3 in train); they are excluded from scores"
        in text
    )


def test_regression_goes_down_and_the_best_stands_first(world: Any) -> None:
    actions = {
        "folder": "x", "stride": 2, "dim": 1, "names": ["x"], "normalisation": {"kind": "train"},
    }  # fmt: skip
    world.dataset(task="regression", labels=None, actions=actions)
    world.csv("train")
    world.csv("val")
    made = world.plan(("frame-diff", "pixels"))
    world.finish_probes(made, {"none": 0.9})
    publish_text(made.probes[1].mounts.out / "result.json", _worse(made.probes[1].mounts.out, 0.4))
    lines = board(world).splitlines()
    assert "toy/val MSE ↓" in lines[2]
    assert lines[4].startswith("pixels ")
    assert lines[4].endswith("0.400 [0.850, 0.950]")
    assert lines[5].startswith("frame-diff ")
    assert not any(line.startswith("chance") for line in lines)
    assert any(line.startswith("most frequent class, mean action") and line.endswith("1.020") for line in lines)


def _worse(out: Path, value: float) -> str:
    document = json.loads((out / "result.json").read_text())
    document["splits"]["val"]["value"] = value
    return json.dumps(document)


def test_another_csv_is_marked_and_older_results_are_counted(world: Any) -> None:
    world.toy()
    old = world.plan(("frame-diff", "pixels"))
    for path in world.finish_probes(old):
        _age(path)
    world.csv("val", 9)
    world.finish_probes(world.plan())
    text = board(world)
    assert "† pixels (corrected) on toy/val: from another CSV" in text
    assert "1 older scores of the same cells are not shown" in text


def _age(path: Path) -> None:
    import os

    os.utime(path, (1, 1))


def test_seeds_show_their_spread(world: Any) -> None:
    world.toy()
    card = load_protocol("smoke").model_copy(update={"seeds": (0, 1)})
    world.finish_probes(world.plan(protocol=card))
    assert "75.0 [70.0, 80.0] sd 1.0" in board(world)


def test_results_for_programs(world: Any) -> None:
    world.toy()
    made = world.plan(control=True)
    world.finish_probes(made)
    records = json.loads(invoke(results, world, "--json"))
    assert [(r["control"], r["value"], r["run"]) for r in records] == [
        ("none", 0.75, made.run),
        ("shuffled", 0.75, made.run),
    ]
    lines = list(csv.DictReader(io.StringIO(invoke(results, world, "--csv"))))
    assert [line["control"] for line in lines] == ["none", "shuffled"]
    assert set(lines[0]) == set(records[0])
    for arguments in (("--run", "other"), ("--protocol", "other"), ("--run", "other", "--json")):
        with pytest.raises(ContractError, match=rf"other.*there are results of runs {made.run}"):
            invoke(results, world, *arguments)
    assert "protocol smoke" in invoke(results, world, "--protocol", "smoke")


def test_a_broken_result_is_named(world: Any) -> None:
    path = world.workspace.results / "r/m/d/p/result.json"
    publish_text(path, '{"version": 1}')
    with pytest.raises(ContractError, match="not a valid ProbeResult") as caught:
        board(world)
    assert str(path) in str(caught.value)


# --- status -----------------------------------------------------------------------------------


def test_status_of_a_run_under_way(world: Any) -> None:
    world.toy(train=4, val=2)
    made = world.plan(("frame-diff", "unknown"), shard_rows=2)
    write_plan(made, world.workspace)
    for job in made.extracts:
        write_job(job, world.workspace)
    world.finish_stores(made, {"train": [3]})
    state = json.loads(invoke(status, world, "--json", "--failures"))
    train = state["stores"][0]
    assert (train["shards_done"], train["rows_ok"], train["rows_failed"], train["rows"]) == (2, 3, 1, 4)
    assert train["reasons"] == {"missing_file": 1}
    assert [(p["done"], p["scores"]) for p in state["probes"]] == [(False, None)]
    assert state["problems"][0].startswith("model unknown")
    (failure,) = state["failures"]
    assert (failure["row"], failure["file"], failure["detail"]) == (3, "a3.png, b3.png", "row 3 is gone")
    text = invoke(status, world, made.run, "--failures")
    assert "missing_file 1" in text
    assert "not planned: model unknown" in text
    assert "a3.png, b3.png" in text


def test_status_shows_scores_and_not_those_of_another_job(world: Any) -> None:
    world.toy()
    made = world.plan()
    write_plan(made, world.workspace)
    world.finish_stores(made)
    (path,) = world.finish_probes(made)
    assert "val 0.7500" in invoke(status, world)
    publish_text(path, path.read_text().replace(made.probes[0].document.fingerprint, "0" * 64))
    assert "to do" in invoke(status, world)


def test_status_without_a_run(world: Any) -> None:
    with pytest.raises(ContractError, match="no run there yet"):
        invoke(status, world)
    world.toy()
    made = world.plan()
    write_plan(made, world.workspace)
    with pytest.raises(ContractError, match=f"no run 'other'; there are {made.run}"):
        invoke(status, world, "other")


# --- models and datasets ----------------------------------------------------------------------


def test_models_say_what_they_need(world: Any) -> None:
    (world.workspace.weights / "univla-latent-action-model").mkdir(parents=True)
    (world.workspace.weights / "univla-latent-action-model/lam-stage-2.ckpt").touch()
    found = {row["key"]: row for row in json.loads(invoke(models, world, "--json"))}
    assert found["frame-diff"]["weights"] == []
    assert found["univla"]["weights"][0]["found"] is True
    assert found["vjepa2"]["weights"][0]["found"] is False
    assert found["vjepa2"]["published"]["calvin"] == 0.27
    assert found["frame-diff"]["tokens"] == {"video": [8, 64, 48], "image": [1, 64, 48]}
    text = invoke(models, world)
    assert "video 8x64x48, image 1x64x48" in text
    assert "model missing" in text
    assert "lary-orch weights ls" in text
    assert "needs none" in text


def test_datasets_say_what_is_here(world: Any) -> None:
    world.dataset()
    world.csv("train", 7)
    found = json.loads(invoke(datasets, world, "--json", "--catalog", str(world.cards)))
    toy = next(row for row in found if row["key"] == "toy")
    assert [(s["split"], s["rows"]) for s in toy["splits"]] == [("train", 7), ("val", None)]
    assert "7 of the first 7 rows have no file, row 0:" in toy["splits"][0]["problem"]
    assert toy["splits"][1]["problem"].startswith("no CSV:")
    assert toy["splits"][1]["problem"].endswith("toy/val.csv")
    assert not any(split["complete"] for split in toy["splits"])
    assert next(r for r in found if r["key"] == "demo_arm")["splits"][0]["problem"] == "made at first use"
    text = invoke(datasets, world, "--catalog", str(world.cards))
    assert re.search(r"^toy .* train \(trains\) +7 ", text, re.MULTILINE)


# --- the commands themselves ------------------------------------------------------------------


@pytest.mark.parametrize("name", MINE)
def test_the_group_tells_the_same_first_line(name: str) -> None:
    text = MINE[name].command.help
    assert text is not None
    assert text.split("\n\n")[0] == COMMANDS[name]


@pytest.mark.parametrize("name", MINE)
def test_every_option_has_help(name: str) -> None:
    context = MINE[name].command.make_context(name, [], resilient_parsing=True)
    options = [p for p in MINE[name].command.get_params(context) if p.param_type_name == "option"]
    assert [p.name for p in options if not getattr(p, "help", None)] == []


def test_options_become_a_request() -> None:
    import click

    seen: list[Any] = []

    @click.command()
    @options.request_options
    def command(request: Any) -> None:
        seen.append(request)

    line = "-m a -m b -d c --split s --variant v --protocol smoke --dtype float32 --seed 3 --no-control --shard-rows 9"
    result = CliRunner().invoke(command, [*line.split(), "--row-timeout", "5", "--retry-failed"])
    assert result.exit_code == 0, result.output
    (request,) = seen
    assert (request.models, request.datasets, request.splits, request.variants) == (("a", "b"), ("c",), ("s",), ("v",))
    assert (request.settings.dtype, request.settings.seed, request.control) == ("float32", 3, False)
    assert (request.shard_rows, request.row_timeout_s, request.retry_failed) == (9, 5, True)
    assert request.protocol.key == "smoke"


@pytest.mark.parametrize(
    "module",
    [
        "lary_orch.cli",
        "lary_orch.cli.plan",
        "lary_orch.plan.planner",
        "lary_orch.cli.results",
        "lary_results.report.page",
    ],
)
def test_no_heavy_library_is_imported(module: str) -> None:
    code = f"import sys, {module}; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert set(loaded) & {"torch", "numpy", "zarr", "tensorstore", "docker", "av", "rich"} == set()


# --- drawing ----------------------------------------------------------------------------------


def test_a_terminal_gets_a_drawing() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    table = Table("t", ("a", "b"), [("[x]", "1"), ("y", "22")], frozenset({1}), frozenset({0}), ("note [z]",))
    out = Terminal()
    show(table, out)
    assert "─" in out.getvalue()
    assert "[x]" in out.getvalue(), "brackets are text, not markup"
    assert "note [z]" in out.getvalue()
    assert plain(table) == "t\n\na     b\n---  --\n[x]   1\n---  --\ny    22\nnote [z]\n"


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (3 << 30, "3.0 GiB"), (5 << 40, "5.0 TiB")]
)
def test_sizes_are_readable(count: int, text: str) -> None:
    assert size_text(count) == text


# --- all about one, and at eighty columns -----------------------------------------------------


def test_all_about_one_model(world: Any) -> None:
    text = invoke(models, world, "vjepa2")
    for said in ("V-JEPA 2 ViT-L/16", "MIT", "cv2-linear-256-crop-224", "vitl.pt", "lary-orch run -m vjepa2"):
        assert said in text
    assert json.loads(invoke(models, world, "dinov3-cs8_sl16_dim32_lr1e-4", "--json"))["key"] == "dinov3-cs"
    with pytest.raises(ContractError, match=r"no model 'vjepa'.*did you mean vjepa2") as caught:
        invoke(models, world, "vjepa")
    assert "\\d" not in str(caught.value), "no regular expressions of families"


def test_all_about_one_dataset(world: Any) -> None:
    world.dataset()
    world.csv("train", 7)
    text = invoke(datasets, world, "toy", "--catalog", str(world.cards))
    for said in ("classification", "split train (trains)", "no CSV:", "toy.yaml", "lary-orch run -m MODEL -d toy"):
        assert said in text
    assert json.loads(invoke(datasets, world, "demo_arm", "--json"))["target"].startswith("column action: chunks of")


def test_runs_say_their_names(world: Any) -> None:
    assert "no run there yet" in invoke(runs, world)
    world.toy()
    made = world.plan()
    write_plan(made, world.workspace)
    (record,) = json.loads(invoke(runs, world, "--json"))
    assert (record["run"], record["state"], record["models"]) == (made.run, "not complete", ["frame-diff"])
    assert made.run in invoke(runs, world)
    assert json.loads(invoke(status, world, "--json"))["running"] is False


def test_a_failed_row_has_the_reason_of_the_tool_that_sampled_it(world: Any) -> None:
    world.dataset()
    world.csv("train", 4)
    rows = ["a.png,b.png,c0,", "a.png,b.png,c0,failed: a.mp4: Invalid data", "a.png,b.png,c1,motion"]
    world.csv("val", text="src_img,tgt_img,action,sampling\n" + "\n".join(rows) + "\n")
    planned = world.plan()
    world.finish_stores(planned, {"val": (1, 2)}, reason="bad_indices")
    write_plan(planned, world.workspace)
    done = CliRunner().invoke(status.command, ["--workspace", str(world.workspace.root), "--failures", "--json"])
    found = {row["row"]: (row["detail"], row["sampled"]) for row in json.loads(done.output)["failures"]}
    assert found == {1: ("a.mp4: Invalid data", False), 2: ("row 2 is gone", True)}
