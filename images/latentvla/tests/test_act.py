"""Checkpoints of the five strategies as policies: the network that was trained, in the units of its training set."""

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from lary_evaluate.command import command
from lary_latentvla.act import LatentVlaPolicy
from lary_latentvla.latent_vla import LatentVlaTrainee
from lary_latentvla.vla_facts import Strategy
from lary_latentvla.vla_network import VlaNetwork
from lary_policy import EpisodeStart, Space
from lary_policy.act import act
from lary_policy.episodes import run_episode
from lary_policy.registry import find_image, make_policy, make_simulator
from lary_schema.base import ContractError, WeightsError, file_sha256
from lary_schema.cards import TensorSpec, WeightSpec
from lary_schema.evaluation import ActJob, Episode, EvaluateValues, EvaluationResult
from lary_schema.jobs import WeightFile
from lary_schema.trained import CHECKPOINT
from lary_schema.training import TrainedCard, TrainResult
from safetensors.torch import save_file

from .conftest import DIM, Rows
from .test_latent_vla import STRATEGIES, TEXTS, A, N, built, recipe, write_tokenizer

CAMERA = TensorSpec(shape=(48, 80, 3), dtype="uint8")
SPACE = Space("world", "task", {"state": TensorSpec(shape=(2,)), "camera": CAMERA, "wrist": CAMERA}, ("x", "y"))
TASK = "left-clockwise-open"


def exported(folder: Path, made: LatentVlaTrainee, network: VlaNetwork) -> Path:
    tensors, document = made.export(network)
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(document), encoding="utf-8")
    return folder


def loaded(folder: Path, key: str = "latent-vla-tiny-0123456789ab") -> LatentVlaPolicy:
    policy = LatentVlaPolicy(key)
    policy.load({"checkpoint": folder}, "cpu")
    return policy


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_it_does_what_was_trained(strategy: Strategy, tmp_path: Path) -> None:
    """The chunk of the very network, from [-1, 1] to the limits of the training set's actions."""
    tokenizer = tmp_path / "tokenizer"
    tokenizer.mkdir()
    made, network, batch = built(recipe(strategy), write_tokenizer(tokenizer, (N, A)))
    policy = loaded(exported(tmp_path, made, network.eval()))
    assert policy.fit(SPACE) == ("camera",)
    policy.reset(TEXTS[1], seed=0)
    chunk = policy.act({"camera": batch.frames[1, 0].numpy()})
    with torch.no_grad():
        scaled = network(batch.frames[1:2, 0], (TEXTS[1],)).actions[0].double().numpy()
    assert (chunk.dtype, chunk.shape) == (np.float32, (N, A))
    low, high = made.range.low, made.range.high
    np.testing.assert_allclose(chunk, low + (scaled + 1) / 2 * (high - low), rtol=1e-5, atol=1e-6)


def test_it_reads_picture_and_instruction_alone(tmp_path: Path) -> None:
    """At any size of picture; neither the seed nor what was shown before matters."""
    policy = loaded(exported(tmp_path, *built(recipe())[:2]))
    policy.fit(SPACE)
    pictures = [np.full((96, 48, 3), value, np.uint8) for value in (0, 200)]

    def acted(picture: int, text: str, seed: int = 1) -> bytes:
        policy.reset(text, seed)
        return policy.act({"camera": pictures[picture]}).tobytes()

    first = acted(0, TEXTS[0])
    assert len({first, acted(1, TEXTS[0]), acted(0, TEXTS[2])}) == 3
    assert acted(0, TEXTS[0], seed=2) == first
    assert policy.act({"camera": pictures[0]}).tobytes() == first


def test_worlds_checkpoints_and_instructions_that_do_not_fit(tmp_path: Path) -> None:
    folder = exported(tmp_path, *built(recipe())[:2])
    policy = loaded(folder)
    with pytest.raises(ContractError, match="actions of 2 numbers, world of 3"):
        policy.fit(Space("world", "task", SPACE.observations, ("x", "y", "z")))
    with pytest.raises(ContractError, match="looks at a camera, and world shows none"):
        policy.fit(Space("world", "task", {"state": TensorSpec(shape=(2,))}, ("x", "y")))
    with pytest.raises(WeightsError, match="needs the folder of its training"):
        policy.load({}, "cpu")
    policy.fit(SPACE)
    policy.reset("push <|lary_action|>", 0)
    with pytest.raises(ContractError, match=r"holds the token '<\|lary_action\|>'"):
        policy.act({"camera": np.zeros((64, 64, 3), np.uint8)})
    document = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    document["vla"]["backbone"] = "smolvlm-256m"
    document["vla"]["size"] = 512
    (folder / "config.json").write_text(json.dumps(document), encoding="utf-8")
    with pytest.raises(WeightsError, match="needs its downloaded folder"):
        loaded(folder)


@pytest.fixture
def trained(rows: Rows, monkeypatch: pytest.MonkeyPatch, seed_workspace: Callable[[Path], Path]) -> Path:
    """A checkpoint folder of the real loop, in a workspace."""
    seed_workspace(rows.root / "workspace")
    monkeypatch.setenv("LARY_IMAGE", "latentvla")
    chosen = recipe(steps=1, latent_tokens=1)
    job = rows.job(chosen, changed={"latents": None})
    assert rows.train(job, "trained")[0] == 0
    key = TrainResult.read(rows.root / "trained/training.json").key
    card = LatentVlaTrainee.card(chosen).model_copy(update={"key": key})
    (rows.root / "trained/card.json").write_text(TrainedCard(image="latentvla", card=card).to_json(), encoding="utf-8")
    # As if it had been written so: another file than the training's is refused.
    result = TrainResult.read(rows.root / "trained/training.json")
    files = result.files | {"card.json": file_sha256(rows.root / "trained/card.json")}
    content = result.model_copy(update={"files": files}).to_json()
    (rows.root / "trained/training.json").write_text(content, encoding="utf-8")
    folder = rows.root / "workspace/trained" / key
    folder.mkdir(parents=True)
    (rows.root / "trained").rename(folder / "checkpoint")
    return folder / "checkpoint"


def test_a_training_acts_in_a_simulator(trained: Path, warm_python: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the command, in two processes: action for action what the policy does in this one."""
    workspace, key = trained.parents[2], trained.parent.name
    arguments = ["-m", key, "-b", "demo_turn", "--task", TASK, "--episodes", "2", "--horizon", "6", "--videos", "0"]
    typed = [str(warm_python), "-m", "lary_orch", "evaluate", *arguments]
    env = os.environ | {"LARY_HOME": str(workspace), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*typed, "--env", "current", "--cpu-slots", "1"], env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    (file,) = (workspace / "results/evaluate/demo_turn" / key).glob("*/evaluation.json")
    found = EvaluationResult.read(file)
    assert [(one.fault, one.steps) for one in found.episodes] == [(None, 6)] * 2
    policy = make_policy(key)
    policy.load({"checkpoint": trained}, "cpu")
    expected = [in_process(policy, one.state, found.values, monkeypatch) for one in found.episodes]
    assert found.episodes == tuple(expected)
    for name, edit in (("config.json", b" "), ("model.safetensors", b"\0")):
        before = (trained / name).read_bytes()
        (trained / name).write_bytes(before + edit)
        assert "not the file that training.json names" in refusal(trained, found.values.weights, monkeypatch)
        (trained / name).write_bytes(before)
    # What the checkpoint does not hold is asked for, as in extraction.
    card = TrainedCard.read(trained / "card.json")
    backbone = WeightSpec(name="backbone", path="a-backbone", license="MIT")
    more = card.card.model_copy(update={"weights": (*card.card.weights, backbone)})
    (trained / "card.json").write_text(card.model_copy(update={"card": more}).to_json(), encoding="utf-8")
    refused = CliRunner().invoke(command, [*arguments, "--env", "current", "--plan"], env={"LARY_HOME": str(workspace)})
    assert "a-backbone: missing (weight 'backbone'" in str(refused.exception) + refused.output


def refusal(trained: Path, weights: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> str:
    """What `act` says of a folder whose files were edited after the training, such as the statistics of its actions."""
    monkeypatch.setenv("LARY_IMAGE", "latentvla")
    find_image.cache_clear()
    for mount in ("data", "weights", "latents", "job", "out"):
        monkeypatch.setenv(f"LARY_MOUNT_{mount.upper()}", str(trained.parent))
    files = [WeightFile(name=name, path=CHECKPOINT, sha256=sha256, trained=True) for name, sha256 in weights.items()]
    with pytest.raises(WeightsError) as caught:
        act(ActJob(id="act", image="i", policy=trained.parent.name, weights=tuple(files)), lambda _: None)
    return str(caught.value)


def in_process(policy: Any, state: int, values: EvaluateValues, monkeypatch: pytest.MonkeyPatch) -> Episode:
    monkeypatch.setenv("LARY_IMAGE", "arm")
    find_image.cache_clear()
    simulator = make_simulator("demo_turn", TASK)
    policy.fit(Space.of(simulator.card, TASK))
    start = EpisodeStart(simulator.task.instruction, values.episode_seed(state), TASK, state)
    assert policy.numbers == DIM
    return run_episode(simulator, policy, start, values.protocol, lambda _: None)[0]
