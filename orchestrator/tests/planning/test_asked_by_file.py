"""`plan --save` and `run --config`: the same request. `--dry-run`, completion, `clean --results`."""

from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from click.testing import CliRunner
from lary_orch.cli import cli, completing, plan, run
from lary_orch.runtimes.devices import Device, Slot
from lary_schema.base import ContractError

LINES = [
    "-m frame-diff -d demo_arm",
    "-m frame-diff,pixels -m random-vit -d demo_arm,demo_motion --split val --variant corrected",
    "-m frame-diff -d demo_arm --no-control --keep-failed --mixed --probe-seed 0 --probe-seed 3 --head dit --ram 2.5",
    "-m frame-diff -d demo_arm --retry-failed --reads actions --reads nuisance --max-failed 0.25 --shard-rows 7",
    "-m frame-diff -d demo_arm --protocol smoke --precision bf16 --dtype float32 --seed 4 --decoder decord",
    "-m frame-diff -d demo_arm --runtime process --env current --device cpu --cpu-slots 2 --track tensorboard",
    "-m frame-diff -d demo_arm --gpus 0 --gpus GPU-1 --workspace ws --data-dir ../data --latents l --weights-dir w",
]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What the commands would plan or run."""
    found: list[dict[str, Any]] = []

    def note(request: Any, catalog: Any, workspace: Any, wanted: Any, **_: Any) -> int:
        found.append({"request": request, "catalog": catalog, "workspace": workspace, "wanted": wanted})
        return 0

    monkeypatch.setattr(plan, "show_plan", note)
    monkeypatch.setattr("lary_orch.run.run.run", lambda *given, **_: note(*given))
    return found


def invoke(*words: str | Path) -> Any:
    return CliRunner().invoke(cli, list(map(str, words)))


@pytest.mark.parametrize("line", LINES)
def test_the_same_from_any_folder(
    line: str, asked: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert invoke("plan", *line.split(), "--save", "sub/asked.yaml").exit_code == 0
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    if "--workspace" not in line:
        monkeypatch.setenv("LARY_HOME", str(tmp_path / "workspace"))
    file = tmp_path / "sub/asked.yaml"
    assert invoke("run", "--config", file).exit_code == 0
    assert invoke("plan", "--config", file, "--save", tmp_path / "again.yaml").exit_code == 0
    assert invoke("run", "--config", file, "--dry-run").exit_code == 0
    assert len(asked) == 4
    assert all(one == asked[0] for one in asked[1:])
    assert yaml.safe_load(file.read_text()) == yaml.safe_load((tmp_path / "again.yaml").read_text())


def test_protocols_and_catalogs_are_found_again(
    asked: list[dict[str, Any]], world: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.toy()
    source = Path(plan.__file__).parents[1] / "catalog/protocols/smoke.yaml"
    (tmp_path / "mine.yaml").write_text(source.read_text().replace("smoke", "mine"))
    monkeypatch.chdir(tmp_path)
    words = ("-m", "pixels", "-d", "toy", "--catalog", "cards", "--protocol", "mine.yaml", "--save", "a.yaml")
    assert invoke("plan", *words).exception is None
    monkeypatch.chdir("/")
    monkeypatch.setenv("LARY_HOME", str(tmp_path / "workspace"))
    assert invoke("run", "--config", tmp_path / "a.yaml").exception is None
    assert asked[0] == asked[1]
    assert asked[1]["request"].protocol.key == "mine"


def test_by_hand_and_what_is_typed_goes_first(asked: list[dict[str, Any]], tmp_path: Path) -> None:
    file = tmp_path / "f.yaml"
    file.write_text("model: frame-diff, pixels\ndataset: [demo_arm]\ncontrol: false\ndata-dir: mine\nattempts: 5\n")
    invoke("run", "--config", file)
    invoke("plan", "--config", file, "-m", "random-vit", "--control")
    first, second = asked
    assert first["request"].models == ("frame-diff", "pixels")
    assert first["workspace"].data == tmp_path / "mine"
    assert (first["request"].control, second["request"].control) == (False, True)
    assert second["request"].models == ("random-vit",)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("modle: [a]", "no option 'modle' (did you mean model?)"),
        ("[a, b]", "is to hold options by name"),
        ("model: {a: b}", "model: give text, a number"),
        ("model: [a]\ndataset:", "dataset: give text, a number"),
        ("protocol: [a, b]", "protocol: takes one value"),
        ("json: true", "no option 'json'"),
        ("config: other.yaml", "no option 'config'"),
        ("model: [", "not YAML"),
    ],
)
def test_a_file_that_is_none(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "f.yaml").write_text(text)
    for name in ("run", "plan"):
        done = invoke(name, "--config", tmp_path / "f.yaml")
        assert isinstance(done.exception, ContractError)
        assert said in str(done.exception)
    assert isinstance(invoke("run", "--config", tmp_path / "absent.yaml").exception, ContractError)


def test_values_are_checked_as_typed_ones(tmp_path: Path) -> None:
    (tmp_path / "f.yaml").write_text("model: a\ndataset: b\nworkers: 0\n")
    done = invoke("run", "--config", tmp_path / "f.yaml")
    assert done.exit_code == 2
    assert "--workers" in done.output


def test_a_dry_run_starts_nothing(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    world.toy()
    slots = (Slot(Device(), 1),)
    monkeypatch.setattr("lary_orch.runtimes.choose.open_runtime", lambda *_: (world.runtime, slots))
    folders = ("--workspace", world.workspace.root, "--catalog", world.cards)
    request = ("-m", "frame-diff", "-d", "toy", "--protocol", "smoke", *folders)
    done, planned = invoke("run", *request, "--dry-run"), invoke("plan", *request)
    assert done.exit_code == 0, done.output
    assert "extract-" in done.output or "frame-diff" in done.output
    assert done.output == planned.output
    assert not (world.workspace.runs).exists()


# --- completion -------------------------------------------------------------------------------


def completed(function: Any, typed: str = "", **params: Any) -> list[str]:
    context = click.Context(run.command)
    context.params = params
    found: list[str] = function(context, click.Option(["--x"]), typed)
    return found


def test_variants_of_the_named_models() -> None:
    assert completed(completing.variants, models=("frame-diff",)) == ["corrected", "imported"]
    every = completed(completing.variants)
    assert {"corrected", "lary-v1", "imported"} <= set(every)
    assert completed(completing.variants, "corrected,la", models=("vjepa2",)) == ["corrected,lary-v1"]


def test_runs_and_models_with_results(world: Any) -> None:
    world.toy()
    planned = world.plan()
    world.finish_probes(planned)
    root = world.workspace.root
    assert completed(completing.runs_with_results, root=root) == [planned.run]
    assert completed(completing.results, root=root) == sorted(["frame-diff", planned.run])
    assert completed(completing.results, "fr", root=root) == ["frame-diff"]


# --- clean ------------------------------------------------------------------------------------


def results_of(world: Any) -> Any:
    world.toy()
    made = world.plan(("frame-diff", "pixels"))
    world.finish_probes(made)
    return made.run


def clean(world: Any, *words: str, answer: str | None = None) -> Any:
    line = ["clean", "--workspace", str(world.workspace.root), *words]
    return CliRunner().invoke(cli, line, input=answer)


def left(world: Any) -> list[str]:
    return sorted({path.parents[2].name for path in world.workspace.results.rglob("result.json")})


def test_results_of_a_model_are_removed_when_asked_for(world: Any) -> None:
    results_of(world)
    assert "Remove these 1?" in clean(world, "--results", "pixels", answer="n\n").output
    assert left(world) == ["frame-diff", "pixels"]
    clean(world, "--results", "pixels", "--dry-run")
    assert left(world) == ["frame-diff", "pixels"]
    assert clean(world, "--results", "pixels", answer="y\n").exit_code == 0
    assert left(world) == ["frame-diff"]


def test_results_of_a_run_and_unknown_names(world: Any) -> None:
    name = results_of(world)
    done = clean(world, "--results", "pixel", "--yes")
    assert f"no results of pixel; there is {name}" in str(done.exception) or "frame-diff" in str(done.exception)
    assert left(world) == ["frame-diff", "pixels"]
    assert clean(world, "--results", name, "--results", "pixels", "--yes").exit_code == 0
    assert left(world) == []


@pytest.mark.parametrize("value", ["", " ", ",", " , "])
def test_an_option_that_names_nothing_is_refused(value: str, tmp_path: Path) -> None:
    """Taken for none it would be a run of nothing, or of all."""
    (tmp_path / "f.yaml").write_text(f"model: ['{value}']\ndataset: demo_motion\n")
    for given in (("-m", value, "-d", "demo_motion"), ("--config", tmp_path / "f.yaml")):
        done = invoke("run", *given)
        assert (done.exit_code, "--model names no model" in done.output) == (2, True)
    done = invoke("run", "-m", "frame-diff", "-d", "demo_motion", "--split", value)
    assert (done.exit_code, "--split names no split" in done.output) == (2, True)
