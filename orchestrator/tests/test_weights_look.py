"""`weights ls` and `verify`: what is there, and what a broken download looks like."""

import argparse
import json
import sys
import zipfile
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from lary_orch.cli.weights import command
from lary_orch.weights.files import Weight, fetchable, list_weights, verify
from lary_schema.base import ContractError, WeightsError
from lary_schema.cards import ImageCard, WeightSpec
from lary_schema.files import damage

GOOD = b"\x40\0\0\0\0\0\0\0" + b'{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'.ljust(64) + b"\0\0\0\0"


def safetensors(path: Path, data: bytes = GOOD) -> Path:
    path.write_bytes(data)
    return path


def spec(**fields: Any) -> WeightSpec:
    return WeightSpec(**({"name": "model", "path": "net.safetensors", "license": "MIT"} | fields))


def weight(path: Path, **fields: Any) -> Weight:
    return Weight(spec(**fields), path, ("some-model",))


def invoke(tmp_path: Path, *arguments: str) -> Result:
    options = ["--workspace", str(tmp_path / "w"), "--weights-dir", str(tmp_path)]
    return CliRunner().invoke(command, [*arguments, *options], catch_exceptions=False)


# --- what a file shows of itself --------------------------------------------------------------


def test_whole_files_pass(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "new.pt", "w") as archive:
        archive.writestr("data.pkl", "x" * 300)
    (tmp_path / "old.pt").write_bytes(b"\x80\x02 a pickle of old")
    assert damage(safetensors(tmp_path / "a.safetensors")) is None
    assert damage(tmp_path / "new.pt") is None
    assert damage(tmp_path / "old.pt") is None


@pytest.mark.parametrize(
    ("name", "data", "why"),
    [
        ("a.pt", b"", "empty"),
        ("a.safetensors", b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 4\n", "git-lfs pointer"),
        ("a.pt", b"\n<!DOCTYPE html><html>Not found", "web page"),
        ("a.safetensors", GOOD[:-1], "75 bytes, 76 by its own header"),
        ("a.safetensors", GOOD[:30], "not a safetensors file"),
        ("a.safetensors", b"\xff" * 40, "not a safetensors file"),
        ("a.safetensors", b"\x02\0\0\0\0\0\0\0[]", "not a safetensors file"),
        ("a.ckpt", b"PK\x03\x04" + b"x" * 200, "cut short"),
    ],
)
def test_broken_downloads_are_seen(tmp_path: Path, name: str, data: bytes, why: str) -> None:
    (tmp_path / name).write_bytes(data)
    found = damage(tmp_path / name)
    assert found is not None
    assert why in found


# --- verify -----------------------------------------------------------------------------------


def test_a_hash_decides(tmp_path: Path) -> None:
    file = safetensors(tmp_path / "net.safetensors")
    good = sha256(GOOD).hexdigest()
    assert verify(weight(file), tmp_path / "c") == ("unknown", f"sha256 {good}; no published hash to compare with")
    assert verify(weight(file, sha256=good), tmp_path / "c")[0] == "ok"
    state, why = verify(weight(file, sha256="0" * 64, repo="lab/net"), tmp_path / "c")
    assert state == "bad"
    assert good in why
    assert "weights fetch" in why


def test_folders_are_looked_into(tmp_path: Path) -> None:
    folder = tmp_path / "net"
    folder.mkdir()
    assert verify(weight(folder), tmp_path / "c")[1].startswith("the folder is empty")
    safetensors(folder / "model.safetensors")
    assert "is missing config.json" in verify(weight(folder, files=("config.json",)), tmp_path / "c")[1]
    (folder / "config.json").write_text("{}")
    assert verify(weight(folder, files=("config.json",)), tmp_path / "c")[0] == "unknown"
    safetensors(folder / "model.safetensors", GOOD[:-1])
    assert "model.safetensors: 75 bytes" in verify(weight(folder), tmp_path / "c")[1]


# --- the list ---------------------------------------------------------------------------------


def test_shared_weights_are_listed_once_and_variables_lead_elsewhere(tmp_path: Path) -> None:
    mode = {"input": {"shape": [2, 8, 8, 3]}, "tokens": [1, 4, 8]}
    shared = {"name": "backbone", "path": "dino", "env": "DINO_CKPT_PATH", "license": "MIT", "repo": "lab/dino"}
    model = {
        "title": "t",
        "paradigm": "semantic",
        "modes": {"image": mode},
        "preprocessing": "p",
        "revision": 1,
        "license": "MIT",
        "source": "s",
    }
    models = [{"key": key, "weights": [shared], **model} for key in ("one", "two")]
    image = ImageCard.parse({"name": "i", "kind": "model", "module": "m", "models": models}, "test")
    cards = {card.key: card for card in image.models}
    (found,) = list_weights(cards, tmp_path, {})
    assert (found.models, found.path, found.found) == (("one", "two"), tmp_path / "dino", False)
    (found,) = list_weights(cards, tmp_path, {"DINO_CKPT_PATH": str(tmp_path)})
    assert found.path == tmp_path


def test_two_sources_for_one_path_are_not_fetched(tmp_path: Path) -> None:
    one, two = weight(tmp_path / "x", repo="a/x"), weight(tmp_path / "x", repo="b/x")
    with pytest.raises(ContractError, match="two models expect different files"):
        fetchable([one, two])
    assert fetchable([one, weight(tmp_path), weight(tmp_path / "none")]) == [one]


# --- the commands -----------------------------------------------------------------------------


def test_ls_names_paths_licences_and_ways(tmp_path: Path) -> None:
    safetensors(tmp_path / "ae.safetensors")
    done = invoke(tmp_path, "ls", "flux2", "vjepa2", "--json")
    flux, vjepa = json.loads(done.output)
    assert (flux["found"], flux["bytes"], flux["variable"], flux["gated"]) == (True, len(GOOD), "AE_MODEL_PATH", True)
    assert (vjepa["found"], vjepa["bytes"], vjepa["variable"]) == (False, None, "VJEPA2_CKPT_PATH")
    assert "dl.fbaipublicfiles.com" in vjepa["how"]
    table = invoke(tmp_path, "ls").output
    assert "dinov2, dinov2-origin" in table


def test_verify_fails_for_bad_files_and_for_missing_ones_that_were_named(tmp_path: Path) -> None:
    assert invoke(tmp_path, "verify").exit_code == 0
    assert invoke(tmp_path, "verify", "flux2").exit_code == 4
    safetensors(tmp_path / "ae.safetensors")
    done = invoke(tmp_path, "verify", "flux2", "--json")
    assert (done.exit_code, json.loads(done.output)["state"]) == (0, "unknown")
    safetensors(tmp_path / "ae.safetensors", GOOD[:-1])
    assert invoke(tmp_path, "verify").exit_code == 4


def test_without_the_flag_nothing_is_made_to_convert(tmp_path: Path) -> None:
    (tmp_path / "lam.ckpt").touch()
    with pytest.raises(ContractError, match=r"lam\.ckpt: would be unpickled; .* --i-trust-this-file"):
        invoke(tmp_path, "convert", str(tmp_path / "lam.ckpt"), str(tmp_path / "lam.safetensors"))
    assert not (tmp_path / "w").exists()


def test_a_family_key_is_left_to_its_image(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match="lary-orch plan -m dinov3-cs8"):
        invoke(tmp_path, "ls", "dinov3-cs8_sl16_dim32_lr1e-4")


@pytest.fixture
def save(tmp_path: Path, warm_python: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], None]:
    """Write old.ckpt; the worker that converts it is a fork of a warm one."""
    import torch  # here, since most of these tests do without it

    monkeypatch.setattr(sys, "executable", str(warm_python))
    return lambda content: torch.save(content, tmp_path / "old.ckpt")


def ones(*shape: int) -> Any:
    import torch

    return torch.ones(shape)


def test_convert_asks_the_worker(tmp_path: Path, save: Callable[[Any], None]) -> None:
    save({"state_dict": {"w": ones(2)}, "args": argparse.Namespace(a=1)})
    paths = [str(tmp_path / "old.ckpt"), str(tmp_path / "new.safetensors"), "--runtime", "process", "--env", "current"]
    with pytest.raises(ContractError, match="--i-trust-this-file"):
        invoke(tmp_path, "convert", *paths)
    done = invoke(tmp_path, "convert", *paths, "--i-trust-this-file")
    assert json.loads(done.stdout)["entry"] == "state_dict"
    assert damage(tmp_path / "new.safetensors") is None
    assert "the process runtime does not isolate" in done.stderr
    with pytest.raises(ContractError, match=r"new.safetensors: exists already"):
        invoke(tmp_path, "convert", *paths, "--i-trust-this-file")
    with pytest.raises(WeightsError, match=r"none.ckpt: no such file"):
        invoke(tmp_path, "convert", str(tmp_path / "none.ckpt"), *paths[1:], "--i-trust-this-file")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (lambda: {"model": {"w": ones(2)}, "ema": {"w": ones(2)}}, r"--entry NAME: model \(1 tensors, 2"),
        (lambda: {"w": ones(2, 2).to_sparse()}, "w: a sparse tensor"),
        (lambda: [ones(2)], "no dictionary"),
    ],
    ids=["two entries", "sparse", "a list"],
)
def test_what_the_converter_refuses_is_no_fault_of_the_environment(
    tmp_path: Path, save: Callable[[Any], None], content: Callable[[], Any], said: str
) -> None:
    save(content())
    paths = [str(tmp_path / "old.ckpt"), str(tmp_path / "new.safetensors"), "--runtime", "process", "--env", "current"]
    with pytest.raises(WeightsError, match=said) as error:
        invoke(tmp_path, "convert", *paths, "--i-trust-this-file")
    assert "install" not in str(error.value)
    assert "environment" not in str(error.value)
    assert not (tmp_path / "new.safetensors").exists()


def test_what_was_left_out_is_said(tmp_path: Path, save: Callable[[Any], None]) -> None:
    save({"m": {"w": ones(9)}, "loss": ones(), "lr": 0.1})
    paths = [str(tmp_path / "old.ckpt"), str(tmp_path / "new.safetensors"), "--runtime", "process", "--env", "current"]
    done = invoke(tmp_path, "convert", *paths, "--i-trust-this-file")
    assert "1 tensors of entry m; left out, with 1 tensors in it: loss (tensor float32 ()), lr (float)" in done.stderr
