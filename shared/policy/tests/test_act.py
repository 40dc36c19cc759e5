"""`act`: a policy is given the weights that were planned, and no others."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from lary_policy import Policy
from lary_policy import act as act_module
from lary_policy.act import act
from lary_policy.baselines import Replay
from lary_policy.policy import EpisodeStart, Observation
from lary_schema.base import ContractError, ExitCode, WeightsError, path_sha256
from lary_schema.evaluation import ActJob, recorded_weight
from lary_schema.jobs import WeightFile
from numpy.typing import NDArray


class Loads(Policy):
    """Remembers what it was given."""

    given: Mapping[str, Path] | None = None

    def load(self, weights: Mapping[str, Path], device: str) -> None:
        self.given = weights

    def reset(self, instruction: str, seed: int) -> None:
        raise NotImplementedError

    def act(self, observation: Observation) -> NDArray[np.float32]:
        raise NotImplementedError


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("data", "weights", "latents", "job", "out"):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(f"LARY_MOUNT_{name.upper()}", str(tmp_path / name))
    (tmp_path / "weights/hub/sub").mkdir(parents=True)
    (tmp_path / "weights/hub/statistics.json").write_text("{}", encoding="utf-8")
    (tmp_path / "weights/hub/sub/model.bin").write_bytes(b"12")
    (tmp_path / "weights/one.bin").write_bytes(b"34")
    return tmp_path / "weights"


CHANGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "nothing": (lambda root: None, ""),
    "a file": (lambda root: (root / "one.bin").write_bytes(b"35"), "one.bin: weights 'one' have sha256"),
    "a file of a folder": (lambda root: (root / "hub/sub/model.bin").write_bytes(b"13"), "hub: weights 'hub' have"),
    "statistics": (lambda root: (root / "hub/statistics.json").write_bytes(b"[]"), "hub: weights 'hub' have sha256"),
    "one more": (lambda root: (root / "hub/more").write_bytes(b""), "hub: weights 'hub' have sha256"),
    "one less": (lambda root: (root / "hub/sub/model.bin").unlink(), "hub: weights 'hub' have sha256"),
    "all": (lambda root: (root / "one.bin").unlink(), "one.bin: weights 'one' are missing"),
}


@pytest.mark.parametrize(("change", "text"), CHANGES.values(), ids=CHANGES)
def test_other_weights_than_planned_are_refused_before_they_are_loaded(
    weights: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[Path], object], text: str
) -> None:
    policy = Loads("loads")
    monkeypatch.setattr(act_module, "make_policy", lambda _: policy)
    monkeypatch.setattr(act_module, "serve", lambda *_: None)
    paths = {"hub": "hub", "one": "one.bin"}
    files = [WeightFile(name=name, path=path, sha256=path_sha256(weights / path)) for name, path in paths.items()]
    job = ActJob(id="a", image="i", policy="loads", weights=tuple(files))
    change(weights)
    if not text:
        act(job, lambda _: None)
        assert policy.given == {name: weights / path for name, path in paths.items()}
        return
    with pytest.raises(WeightsError, match=text) as caught:
        act(job, lambda _: None)
    assert caught.value.exit_code == ExitCode.WEIGHTS
    assert policy.given is None


def test_a_replay_sends_the_recording_of_its_task(tmp_path: Path) -> None:
    for number, task in enumerate(("lift", "push")):
        (tmp_path / task).mkdir()
        for state in (3, 10):
            np.save(tmp_path / task / f"{state}.npy", np.full((9, 2), 100 * number + state, np.float32))
    policy = Replay("replay")
    policy.load({recorded_weight(task): tmp_path / task for task in ("lift", "push")}, "cpu")
    for task, state, sent in (("lift", 10, 10), ("push", 3, 103), ("push", 10, 110), ("lift", 4, 3)):
        policy.begin(EpisodeStart("", 0, task, state))
        chunks = [policy.act({}) for _ in range(3)]
        assert [len(chunk) for chunk in chunks] == [8, 1, 1]
        assert {float(value) for chunk in chunks for value in chunk.flat} == {sent}
    with pytest.raises(ContractError, match="no recorded episode of task drop"):
        policy.begin(EpisodeStart("", 0, "drop", 3))
