"""A checkpoint that is not the expected one: an error with exit code 4 that names the file."""

import json
import shutil

import pytest
import torch
from lary_schema.base import ExitCode, WeightsError
from safetensors.torch import save_file

CLIPS = ("univla", "flux2", "wan2-2", "vjepa2", "villa-x")
FILES = [
    *((key, "model") for key in ("lapa", "dinov2", "dinov3", "siglip2", "magvit2", *CLIPS)),
    ("magvit2", "tokenizer"),
    *((key, "backbone") for key in ("dinov2", "dinov3", "siglip2")),
    *((key, "backbone") for key in ("dinov2-origin", "dinov3-origin", "siglip2-origin")),
]
"""Every file and folder that a family of models reads."""
FOLDERS = [(key, role) for key, role in FILES if role == "backbone" or key == "villa-x"]
SINGLE = [file for file in FILES if file not in FOLDERS]
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"


class Spoiler:
    """A small, good checkpoint of which one role is a copy that may be spoiled."""

    def __init__(self, bench, golden, folder, key, role):
        self.bench, self.role = bench, role
        self.case = next(c for c in golden.cases if (c["key"], c["size"]) == (key, "small"))
        self.paths = dict(bench.checkpoint(self.case["checkpoint"]))
        self.path = folder / self.paths[role].name
        source = self.paths[role]
        (shutil.copytree if source.is_dir() else shutil.copy)(source, self.path)
        self.paths[role] = self.path

    @property
    def tensors(self):
        """The file of the tensors."""
        return self.path / "model.safetensors" if self.path.is_dir() else self.path

    @property
    def config(self):
        return next(self.path / name for name in ("model_config.json", "config.json") if (self.path / name).exists())

    def load(self):
        self.bench.unloaded(self.case, "corrected").load(self.paths, torch.device("cpu"), torch.float32, seed=0)

    def is_refused(self, match):
        with pytest.raises(WeightsError, match=match) as caught:
            self.load()
        assert caught.value.exit_code == ExitCode.WEIGHTS
        assert str(self.path) in str(caught.value)


@pytest.fixture
def spoil(bench, golden, tmp_path):
    return lambda key, role: Spoiler(bench, golden, tmp_path, key, role)


@pytest.mark.parametrize(("key", "role"), FILES)
def test_missing(spoil, key, role):
    bad = spoil(key, role)
    shutil.rmtree(bad.path) if bad.path.is_dir() else bad.path.unlink()
    bad.is_refused("is missing")


@pytest.mark.parametrize(("key", "role"), FILES)
def test_truncated(spoil, key, role):
    bad = spoil(key, role)
    bad.tensors.write_bytes(bad.tensors.read_bytes()[: bad.tensors.stat().st_size // 2])
    bad.is_refused("truncated|cannot be loaded as")


@pytest.mark.parametrize(("key", "role"), FILES)
def test_a_pointer_in_place_of_the_file(spoil, key, role):
    bad = spoil(key, role)
    bad.tensors.write_text(POINTER)
    bad.is_refused(f"{bad.tensors.name}: is a Git LFS pointer")


@pytest.mark.parametrize(("key", "role"), FILES)
def test_a_web_page_in_place_of_the_file(spoil, key, role):
    """What a download without the right to it leaves."""
    bad = spoil(key, role)
    bad.tensors.write_text("<!DOCTYPE html><title>Sign in</title>")
    bad.is_refused("neither a safetensors nor|cannot be loaded as")


@pytest.mark.parametrize(("key", "role"), SINGLE)
def test_a_folder_in_place_of_the_file(spoil, key, role):
    """Some keys read hub folders too; an empty one is none."""
    bad = spoil(key, role)
    bad.path.unlink()
    bad.path.mkdir()
    bad.is_refused("(config.json: the file is missing|is a folder, but a checkpoint file is expected)")


@pytest.mark.parametrize(("key", "role"), FOLDERS)
def test_a_file_in_place_of_the_folder(spoil, key, role):
    bad = spoil(key, role)
    shutil.rmtree(bad.path)
    bad.path.write_bytes(b"weights")
    bad.is_refused(r"is a file, but a folder with (model_)?config.json, model.safetensors is expected here")


@pytest.mark.parametrize(("key", "role"), FOLDERS)
def test_a_folder_without_its_config(spoil, key, role):
    bad = spoil(key, role)
    name = bad.config.name
    bad.config.unlink()
    bad.is_refused(f"{name}: the file is missing")


@pytest.mark.parametrize(("key", "role"), FOLDERS)
def test_a_config_of_another_model(spoil, key, role):
    bad = spoil(key, role)
    other = json.loads(bad.config.read_text()) | {"model_type": "bert", "architecture": "BertModel"}
    bad.config.write_text(json.dumps(other))
    bad.is_refused("config.json: (is a bert model, but|architecture is not IgorModel)")


@pytest.mark.parametrize(("key", "role"), FILES)
def test_another_models_checkpoint(spoil, key, role):
    bad, tensors = spoil(key, role), {"net.weight": torch.zeros(2, 2)}
    if bad.tensors.suffix == ".safetensors":
        save_file(tensors, bad.tensors, metadata={"format": "pt"})
    else:
        torch.save(tensors, bad.tensors)
    bad.is_refused("(missing|has no entry)")


@pytest.mark.parametrize("key", CLIPS)
def test_one_tensor_more_or_less(spoil, golden, key):
    bad = spoil(key, "model")
    facts = golden.checkpoints[bad.case["checkpoint"]]
    file = next(f for f in facts["files"] if f["role"] == "model")
    spoiled = {**file, "tensors": [["extra.weight", [1]], *file["tensors"][1:]]}
    shutil.rmtree(bad.path) if bad.path.is_dir() else bad.path.unlink()
    golden._write_file(spoiled, facts["salt"], bad.path)
    bad.is_refused("(?s)1 missing: .*1 unexpected: extra.weight")
