"""A toy image that trains, its recipes, a small set of pairs, and the command line on them."""

import importlib.util
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import pytest
import yaml

REPO = Path(__file__).parents[3]
RECIPE: dict[str, Any] = {
    "key": "toy-demo", "title": "toy", "trainee": "toy", "config": {"width": 4}, "batch_size": 6, "steps": 6,
    "optimiser": {"lr": 0.01}, "losses": {"pixels": 1.0},
}  # fmt: skip
STUDY: dict[str, Any] = {
    "key": "toys",
    "title": "two arms",
    "data": {"train": "toys", "labelled": {"share": 0.5}},
    "seeds": [0, 1],
    "stages": {
        "lam": {"recipe": "toy-demo"},
        "more": {"recipe": "toy-demo", "init": "lam", "labelled": True, "with": {"steps": 3}},
    },
    "arms": {
        "A0": {"title": "first", "of": "lam"},
        "A1": {"title": "longer", "of": "more"},
        "A5": {"of": "more", "with": {"supervised": True, "losses": {"action": 0.1}}},
    },
    "read": {"variants": ["corrected"], "protocol": "study"},
    "compare": [["A1", "A0"], ["A5", "A1"]],
    "baselines": {
        "random-init": {"of": "lam", "with": {"steps": 0}},
        "once": {"of": "lam", "with": {"steps": 0}, "once": True},
        "pixels": {"model": "pixels"},
    },
}


def _trainer_tests() -> ModuleType:
    """The toy image of the trainer's own tests."""
    spec = importlib.util.spec_from_file_location("trainer_conftest", REPO / "shared/trainer/tests/conftest.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def _make_set(data: Path) -> None:
    for split, groups in (("train", 8), ("val", 4)):
        folder = data / "toys" / split
        folder.mkdir(parents=True)
        rng = np.random.default_rng(groups)
        lines = ["src_img,tgt_img,action,episode"]
        for row in range(groups * 4):
            action = rng.normal(size=(2, 3)).astype(np.float32)
            first = rng.integers(0, 200, (8, 8, 3), np.uint8)
            for at, frame in enumerate((first, first + np.uint8(25 + 8 * action[0, 0]))):
                cv2.imwrite(str(folder / f"{row}_{at}.png"), frame)
            np.save(folder / f"{row}.npy", action)
            lines.append(f"{row}_0.png,{row}_1.png,{row}.npy,e{row % groups}")
        (data / "toys" / f"{split}.csv").write_text("\n".join(lines) + "\n")


def _make_catalog(folder: Path, toys: ModuleType) -> None:
    package = folder / "toy" / "src" / "lary_toy_study"
    package.mkdir(parents=True)
    (package / "image.yaml").write_text(toys.TOY_YAML)
    (package / "__init__.py").write_text("")
    (folder / "toy" / "pyproject.toml").write_text('[project]\nname = "lary-toy-study"\nversion = "1"\n')
    (package / "toy.py").write_text(toys.TOY_CODE)
    info = folder / "toy" / "src" / "lary_toy_study-1.dist-info"
    info.mkdir()
    (info / "entry_points.txt").write_text(
        "[lary.models]\ntoy = lary_toy_study.toy:ToyModel\n[lary.trainees]\ntoy = lary_toy_study.toy:ToyTrainee\n"
    )
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: lary-toy-study\nVersion: 1\n")
    card = {
        "key": "toys", "title": "toys", "task": "regression", "columns": {"input": "image"},
        "metadata": "toys/{split}.csv", "media": "toys/{split}", "group": "episode", "license": "MIT",
        "source": "tests",
        "actions": {
            "folder": "toys/{split}", "stride": 2, "dim": 3, "names": ["a", "b", "c"],
            "normalisation": {"kind": "train"},
        },
    }  # fmt: skip
    (folder / "toys.yaml").write_text(yaml.safe_dump(card))
    for kind, document in (("recipes", RECIPE), ("studies", STUDY)):
        (folder / kind).mkdir()
        (folder / kind / f"{document['key']}.yaml").write_text(yaml.safe_dump(document))


@dataclass
class Bench:
    """A catalog, a workspace, and commands."""

    root: Path
    name: str
    """Of the workspace: each test module has its own."""

    @property
    def catalog(self) -> Path:
        return self.root / "cards"

    @property
    def workspace(self) -> Path:
        return self.root / self.name

    def options(self, workspace: str = "") -> list[str]:
        here = ["--catalog", str(self.catalog), "--workspace", str(self.root / (workspace or self.name))]
        data = ["--data-dir", str(self.root / "data")]
        return [*here, *data, "--runtime", "process", "--env", "current", "--device", "cpu", "--cpu-slots", "2"]

    def run(self, *arguments: str, workspace: str = "") -> int:
        """`lary-orch ARGUMENTS` in this process; the exit code."""
        return self.command(*arguments, *self.options(workspace))

    def run_results(self, *arguments: str) -> int:
        """`lary-orch results ARGUMENTS`."""
        return self.command("results", *arguments, "--workspace", str(self.workspace))

    @staticmethod
    def command(*arguments: str) -> int:
        """`lary-orch ARGUMENTS` as they are."""
        from lary_orch.cli import cli
        from lary_schema.base import ContractError

        try:
            result = cli.main(list(arguments), standalone_mode=False)
        except SystemExit as leaving:
            return int(leaving.code or 0)
        except ContractError as error:
            sys.stderr.write(f"error: {error}\n")
            return int(error.exit_code)
        return result if isinstance(result, int) else 0

    def json(self, path: str) -> Any:
        return json.loads((self.workspace / path).read_text(encoding="utf-8"))


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("study")
    _make_set(root / "data")
    _make_catalog(root / "cards", _trainer_tests())
    return root


@pytest.fixture(scope="module")
def bench(made: Path, warm_python: Path, request: pytest.FixtureRequest) -> Iterator[Bench]:
    """Commands of images are forks of one process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "executable", str(warm_python))
        for name in ("LARY_HOME", "DATA_DIR", "LARY_LA_DIR", "MODEL_DIR", "LARY_CATALOG", "LARY_REPO", "LARY_ROOT"):
            patch.delenv(name, raising=False)
        patch.setenv("PYTHONPATH", str(made / "cards" / "toy" / "src"))
        yield Bench(made, request.module.__name__.rpartition(".")[2])
