"""The converter: what it keeps, what it drops, and that it runs nothing of the file."""

import json
import pickle
from functools import partial
from pathlib import Path

import pytest
import torch
from lary_schema.base import ContractError, ExitCode, WeightsError
from lary_schema.files import visible_files
from lary_worker.__main__ import main
from lary_worker.checkpoints import read_state
from lary_worker.convert import convert as _convert

convert = partial(_convert, trusted=True)


class Hyper(dict):
    """A trainer's own class, as Lightning's AttributeDict."""


class Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.fixture
def state():
    shared = torch.arange(6.0)
    return {"lam.a.weight": shared.reshape(2, 3), "lam.b.bias": shared[:3], "lam.n": torch.tensor(7)}


@pytest.fixture
def lightning(tmp_path, state):
    path = tmp_path / "lam.ckpt"
    hyper = Hyper(lr=1e-4, optimizer=partial(torch.optim.AdamW, lr=1e-4))
    torch.save({"state_dict": state, "hyper_parameters": hyper, "epoch": 3, "loops": {"fit": [1, 2]}}, path)
    return path


def test_the_loader_asks_for_the_conversion_and_reads_its_result(lightning, state, tmp_path):
    with pytest.raises(WeightsError, match="weights convert"):
        read_state(lightning, "state_dict")
    target = tmp_path / "lam.safetensors"
    convert(lightning, target)
    found = read_state(target, "state_dict")
    assert found.keys() == state.keys()
    assert all(torch.equal(found[name], state[name]) for name in state)


def test_what_was_dropped_is_written_down(lightning, tmp_path):
    convert(lightning, tmp_path / "lam.safetensors")
    report = json.loads((tmp_path / ".lam.safetensors.json").read_text())
    assert report["entry"] == "state_dict"
    assert report["tensors"] == 3
    assert report["dropped"].keys() == {"hyper_parameters", "epoch", "loops"}
    assert report["dropped"]["hyper_parameters"].endswith("Hyper")
    assert report["dropped"]["loops"] == "dict of 1"


@pytest.mark.parametrize("zipped", [True, False])
def test_nothing_of_the_file_runs(state, tmp_path, zipped):
    path, mark = tmp_path / "bomb.pt", tmp_path / "mark"
    torch.save({"state_dict": state, "hyper_parameters": Bomb(mark)}, path, _use_new_zipfile_serialization=zipped)
    convert(path, tmp_path / "out.safetensors")
    assert not mark.exists()
    assert read_state(tmp_path / "out.safetensors").keys() == state.keys()


def test_a_flat_file_and_its_strange_values(state, tmp_path):
    path = tmp_path / "flat.pt"
    torch.save({**state, "version": 2}, path)
    assert convert(path, tmp_path / "out.safetensors").dropped == {"version": "int"}


def test_two_entries_need_a_choice(state, tmp_path):
    path = tmp_path / "two.pt"
    torch.save({"model": state, "ema": state}, path)
    with pytest.raises(WeightsError, match=r"--entry NAME: model \(3 tensors, 9 floating values\), ema \(3 tensors"):
        convert(path, tmp_path / "out.safetensors")
    assert convert(path, tmp_path / "out.safetensors", "ema").dropped == {"model": "dict of 3"}


def test_nothing_is_overwritten(lightning, tmp_path):
    target = tmp_path / "lam.safetensors"
    target.write_bytes(b"valuable")
    with pytest.raises(ContractError, match="exists already"):
        convert(lightning, target)
    assert target.read_bytes() == b"valuable"


@pytest.mark.parametrize("content", [b"", b"version https://git-lfs.github.com/spec/v1\n", b"PK\x03\x04 cut", b"text"])
def test_what_is_no_checkpoint_is_refused(tmp_path, content):
    path = tmp_path / "broken.ckpt"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=r"broken\.ckpt"):
        convert(path, tmp_path / "out.safetensors")
    assert not (tmp_path / "out.safetensors").exists()


def test_a_pickle_without_tensors_is_refused(tmp_path):
    path = tmp_path / "list.ckpt"
    path.write_bytes(pickle.dumps([1, 2]))
    with pytest.raises(WeightsError, match=r"list\.ckpt"):
        convert(path, tmp_path / "out.safetensors")


def test_the_flag_is_required(lightning, tmp_path, capfd):
    target = tmp_path / "out.safetensors"
    assert main(["convert", str(lightning), str(target)]) == ExitCode.BAD_JOB
    assert "--i-trust-this-file" in capfd.readouterr().err
    assert not target.exists()


def test_the_command_prints_its_report(lightning, tmp_path, capfd):
    target = tmp_path / "out.safetensors"
    assert main(["convert", str(lightning), str(target), "--i-trust-this-file"]) == ExitCode.DONE
    assert json.loads(capfd.readouterr().out) == json.loads((tmp_path / ".out.safetensors.json").read_text())


def test_a_stopped_conversion_is_done_again_and_its_report_is_no_weight(lightning, tmp_path, stopped_at_every_change):
    folder = tmp_path / "weights"
    target = folder / "lam.safetensors"
    for _ in stopped_at_every_change(lambda: convert(lightning, target)):
        if target.exists():
            assert (folder / ".lam.safetensors.json").is_file()
            target.unlink()
    assert [path.name for path in visible_files(folder) if not path.name.endswith(".partial")] == ["lam.safetensors"]
    with pytest.raises(ContractError, match="exists already"):
        convert(lightning, target)
