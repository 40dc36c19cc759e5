"""A checkpoint of the joint stage as a policy."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lary_lara.act import NOISE, LaraPolicy
from lary_lara.joint import JointNetwork
from lary_lara.lara import LaraTrainee
from lary_policy import EpisodeStart, Space
from lary_schema.base import ContractError, WeightsError
from lary_schema.cards import TensorSpec
from lary_schema.training import Recipe
from lary_trainer.chance import row_noise
from lary_trainer.trainee import ActionFacts, Facts
from safetensors.torch import save_file

SPACE = Space(
    "world",
    "task",
    {"state": TensorSpec(shape=(2,)), "camera": TensorSpec(shape=(32, 32, 3), dtype="uint8")},
    ("x", "y"),
)
MEAN, STD = np.array([0.5, -2.0]), np.array([0.1, 3.0])
START = EpisodeStart("up", 11, "task", 0)


def trainee(**config: Any) -> LaraTrainee:
    sizes: dict[str, Any] = {
        "size": 16, "patch": 8, "width": 16, "heads": 2, "encoder_layers": 1, "decoder_layers": 1, "queries": 2,
        "codes": 8, "code_width": 4, "encoder": "pixel", "initial": "fan-in",
        "policy_width": 16, "policy_blocks": 2, "policy_heads": 2,
    }  # fmt: skip
    losses = {"flow": 1.0, "alignment": 0.1, "regression": 0.1, "pixels": 0.1, "quantiser": 0.1}
    recipe = Recipe.model_validate(
        {"key": "lara-tiny", "title": "t", "trainee": "lara", "config": sizes | config, "optimiser": {"lr": 1e-3},
         "batch_size": 4, "steps": 1, "losses": losses}
    )  # fmt: skip
    actions = ActionFacts(MEAN, STD, MEAN - STD, MEAN + STD, np.zeros((1, 3, 2)))
    return LaraTrainee(recipe, Facts(rows=9, action_shape=(3, 2), words=("down", "up"), actions=actions), 0)


def checkpoint(folder: Path, **config: Any) -> JointNetwork:
    made = trainee(**config)
    network = made.build({}, torch.device("cpu")).eval()
    assert isinstance(network, JointNetwork)
    tensors, document = made.export(network)
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(document), encoding="utf-8")
    return network


@pytest.fixture
def policy(tmp_path: Path) -> tuple[LaraPolicy, JointNetwork]:
    network = checkpoint(tmp_path)
    made = LaraPolicy("lara-tiny-0123456789ab")
    made.load({"checkpoint": tmp_path}, "cpu")
    assert made.fit(SPACE) == ("camera",)
    return made, network


def test_it_does_what_was_trained(policy: tuple[LaraPolicy, JointNetwork]) -> None:
    """The very network, its actions in the units of the training set, from noise that seed and chunk decide."""
    made, network = policy
    seen = {"camera": np.random.default_rng(0).integers(0, 255, (16, 16, 3), np.uint8)}
    made.begin(START)
    chunks = [made.act(seen) for _ in range(2)]
    assert network.policy is not None
    for number, chunk in enumerate(chunks):
        with torch.no_grad():
            context = network.condition(torch.from_numpy(seen["camera"][None]), ("up",))
            noise = row_noise(11, NOISE, number, np.zeros(1, np.int64), (3, 2))
            expected = network.policy.sample(noise, *context)[0].numpy() * STD + MEAN
        assert (chunk.dtype, chunk.shape) == (np.float32, (3, 2))
        np.testing.assert_allclose(chunk, expected, rtol=1e-5, atol=1e-6)
    assert not np.array_equal(*chunks)
    made.begin(START)
    np.testing.assert_array_equal(made.act(seen), chunks[0])


def test_it_reads_picture_instruction_and_seed(policy: tuple[LaraPolicy, JointNetwork]) -> None:
    made, _ = policy
    pictures = [np.full((64, 48, 3), value, np.uint8) for value in (0, 200)]
    acted = []
    for picture, text, seed in ((0, "up", 1), (1, "up", 1), (0, "down", 1), (0, "up", 2)):
        made.reset(text, seed)
        acted.append(made.act({"camera": pictures[picture]}).tobytes())
    assert len(set(acted)) == 4


def test_a_downloaded_encoder_is_handed_over(
    policy: tuple[LaraPolicy, JointNetwork], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No checkpoint holds one: it is a weight of its own."""
    from lary_lara import joint

    given: list[Path | None] = []
    make = joint.make_encoder

    def noted(config: Any, weights: Path | None) -> Any:
        given.append(weights)
        return make(config, None)

    monkeypatch.setattr(joint, "make_encoder", noted)
    policy[0].load({"checkpoint": tmp_path, "encoder": tmp_path / "vit"}, "cpu")
    assert given == [tmp_path / "vit"]


def test_worlds_and_checkpoints_that_do_not_fit(policy: tuple[LaraPolicy, JointNetwork], tmp_path: Path) -> None:
    made, _ = policy
    with pytest.raises(ContractError, match="actions of 2 numbers, world of 3"):
        made.fit(Space("world", "task", SPACE.observations, ("x", "y", "z")))
    with pytest.raises(ContractError, match="looks at a camera, and world shows none"):
        made.fit(Space("world", "task", {"state": TensorSpec(shape=(2,))}, ("x", "y")))
    with pytest.raises(WeightsError, match="needs the folder of its training"):
        made.load({}, "cpu")
    without = tmp_path / "without"
    without.mkdir()
    checkpoint(without, policy="none", action_head="linear")
    with pytest.raises(WeightsError, match="no policy to act by"):
        made.load({"checkpoint": without}, "cpu")
    document = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    del document["policy"]["action_mean"]
    (tmp_path / "config.json").write_text(json.dumps(document), encoding="utf-8")
    with pytest.raises(WeightsError, match="no policy to act by"):
        made.load({"checkpoint": tmp_path}, "cpu")
