"""The commands of an image that trains; a checkpoint is a model."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from lary_schema.cards import ImageCard
from lary_schema.jobs import ArrayLayout, ExtractJob, Values, WeightFile
from lary_schema.store.reader import LatentReader
from lary_trainer.registry import training_sha256
from lary_worker import registry


def command(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "lary_trainer", *arguments], capture_output=True, text=True, check=False, timeout=120
    )


@pytest.mark.parametrize("suffix", ["json", "yaml"])
def test_the_facts_of_what_a_recipe_trains(bench: Any, tmp_path: Path, suffix: str) -> None:
    chosen = bench.recipe(config={"width": 5})
    path = tmp_path / f"recipe.{suffix}"
    path.write_text(chosen.to_json() if suffix == "json" else yaml.safe_dump(chosen.model_dump(mode="json")))
    done = command("describe", "--recipe", str(path))
    assert done.returncode == 0, done.stderr
    card = ImageCard.parse(json.loads(done.stdout), "test")
    (model,) = card.models
    assert (card.name, model.key, model.modes["image"].tokens) == ("toy", "toy-a", (1, 1, 5))
    assert model.code_sha256 == registry.code_of("toy-a-" + "0" * 12)
    assert card.code_sha256 == training_sha256(chosen) != model.code_sha256
    assert [spec.name for spec in model.weights] == ["checkpoint"]


def test_a_recipe_that_is_wrong(bench: Any, tmp_path: Path) -> None:
    path = tmp_path / "recipe.json"
    path.write_text(bench.recipe(config={"widht": 5}).to_json())
    done = command("describe", "--recipe", str(path))
    assert done.returncode == 2
    assert "unknown key 'widht'" in json.loads(done.stdout)["message"]


def test_the_workers_commands(bench: Any) -> None:
    done = command("describe")
    assert [model["key"] for model in json.loads(done.stdout)["models"]] == ["toy"]
    assert command("describe", "--model", "toy-a-0123456789ab").returncode == 0
    done = command("extract", "--job", "nowhere.json")
    assert (done.returncode, "nowhere.json: cannot be read" in done.stderr) == (2, True)
    assert command("selftest", "--help").stdout.startswith("usage: lary_worker")


def test_torch_is_not_imported_before_it_is_needed(bench: Any) -> None:
    """`describe` at planning, decode processes, and a training that was done."""
    code = (
        "import sys\nimport lary_trainer.__main__, lary_trainer.child, lary_trainer.registry, lary_trainer.checkpoint\n"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_a_checkpoint_is_a_model(bench: Any) -> None:
    """Extraction reads it through the weights mount by its key."""
    training = bench.job(values={"recipe": bench.recipe(config={"width": 5})})
    assert bench.train(training, out="weights/checkpoint").code == 0
    described = json.loads(command("describe", "--model", training.values.key).stdout)
    (card,) = ImageCard.parse(described, "test").models
    assert (card.key, card.modes["image"].tokens) == (training.values.key, (1, 1, 5))
    job = extraction(bench, training, card)
    path = bench.root / "job/extract.json"
    path.write_text(job.to_json())
    done = command("extract", "--job", str(path))
    assert done.returncode == 0, done.stderr
    store = LatentReader.open(bench.root / "latents/a.zarr")
    assert (store.ok_rows().tolist(), store.tokens(store.ok_rows()).shape) == (list(range(24)), (24, 1, 1, 5))
    # Other bytes than those of the training are refused.
    model = bench.root / "weights/checkpoint/model.safetensors"
    model.write_bytes(model.read_bytes()[:-1] + b"\0\0")
    other = job.model_copy(update={"store": job.store.model_copy(update={"path": "b.zarr"})})
    path.write_text(other.to_json())
    assert command("extract", "--job", str(path)).returncode == 4


def extraction(bench: Any, training: Any, card: Any) -> ExtractJob:
    spec, source = card.modes["image"], training.source
    values = Values(
        model=card.key, variant="corrected", mode="image", spec=spec, preprocessing="toy", revision=1,
        code_sha256=card.code_sha256, weights={"checkpoint": training.fingerprint}, dataset="toys", split="train",
        metadata_sha256=source.metadata.sha256, columns=source.columns, media=source.media, frames=1, decoder="pyav",
        precision="fp32", dtype="float16", seed=0,
    )  # fmt: skip
    layout = ArrayLayout(
        path="a.zarr", fingerprint=values.fingerprint, rows=24, shard_rows=24, dtype="float16", tokens=spec.tokens
    )
    weight = WeightFile(name="checkpoint", path="checkpoint", sha256=training.fingerprint, trained=True)
    return ExtractJob(
        id="extract", image="toy", values=values, source=source, store=layout, shards=(0,), weights=(weight,),
        workers=1, threads=1,
    )  # fmt: skip
