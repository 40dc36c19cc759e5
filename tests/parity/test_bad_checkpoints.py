"""A checkpoint that is not the expected one: an error with exit code 4 that names the file."""

import shutil

import pytest
import torch
from lary_schema.base import ExitCode, WeightsError
from safetensors.torch import save_file

KEYS = ("univla", "flux2", "wan2-2", "vjepa2", "villa-x")
FOLDERS = ("villa-x",)


@pytest.fixture
def weights(bench, golden, tmp_path):
    """A small, good checkpoint of a key, copied so that it may be spoiled; and the file of its tensors."""

    def copy(key):
        case = next(c for c in golden.cases if (c["key"], c["size"]) == (key, "small"))
        source = bench.checkpoint(case["checkpoint"])["model"]
        target = tmp_path / source.name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, target)
        return case, target, target / "model.safetensors" if key in FOLDERS else target

    return copy


def _load(bench, case, path):
    bench.unloaded(case, "corrected").load({"model": path}, torch.device("cpu"), torch.float32, seed=0)


def _refused(bench, case, path, match):
    with pytest.raises(WeightsError, match=match) as caught:
        _load(bench, case, path)
    assert caught.value.exit_code == ExitCode.WEIGHTS
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("key", KEYS)
def test_missing(bench, weights, key):
    case, path, _ = weights(key)
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    _refused(bench, case, path, "is missing")


@pytest.mark.parametrize("key", KEYS)
def test_truncated(bench, weights, key):
    case, path, file = weights(key)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    _refused(bench, case, path, "truncated")


@pytest.mark.parametrize("key", KEYS)
def test_a_pointer_in_place_of_the_file(bench, weights, key):
    case, path, file = weights(key)
    file.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    _refused(bench, case, path, "LFS pointer")


@pytest.mark.parametrize("key", KEYS)
def test_a_web_page_in_place_of_the_file(bench, weights, key):
    """What a download without the right to it leaves."""
    case, path, file = weights(key)
    file.write_text("<!DOCTYPE html><title>Sign in</title>")
    _refused(bench, case, path, "neither a safetensors nor")


@pytest.mark.parametrize("key", KEYS)
def test_a_folder_without_what_is_needed(bench, weights, tmp_path, key):
    """In place of a file, or without the config that says what the tensors are."""
    case, _, _ = weights(key)
    folder = tmp_path / "empty"
    folder.mkdir()
    _refused(bench, case, folder, "(config.json: the file is missing|a folder, but a checkpoint file is expected)")


@pytest.mark.parametrize("key", KEYS)
def test_another_models_checkpoint(bench, weights, tmp_path, key):
    case, path, file = weights(key)
    tensors = {"net.weight": torch.zeros(2, 2)}
    save_file(tensors, file) if file.suffix == ".safetensors" else torch.save(tensors, file)
    _refused(bench, case, path, "(missing|has no entry)")


@pytest.mark.parametrize("key", KEYS)
def test_one_tensor_more_or_less(bench, weights, golden, key):
    case, path, _ = weights(key)
    facts = golden.checkpoints[case["checkpoint"]]
    file = next(f for f in facts["files"] if f["role"] == "model")
    spoiled = {**file, "tensors": [["extra.weight", [1]], *file["tensors"][1:]]}
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    golden._write_file(spoiled, facts["salt"], path)
    _refused(bench, case, path, "(?s)1 missing: .*1 unexpected: extra.weight")
