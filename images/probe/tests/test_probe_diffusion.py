"""The diffusion head's parts: noise that belongs to rows, the schedule against diffusers', the network, sampling."""

import csv
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lary_probe.ddpm import Ddpm
from lary_probe.dit import Dit, sinusoids
from lary_probe.noise import GOLDEN, _mixed, key_of, normals, uniforms
from lary_schema.base import ContractError
from lary_schema.cards import DiffusionHead, ProtocolCard, RegressRecipe
from lary_schema.events import Progress
from lary_schema.results import ProbeResult
from lary_schema.watchdog import Watchdog
from numpy.typing import NDArray

WithProtocol = Callable[..., ProtocolCard]
SMALL = DiffusionHead(width=32, depth=2, heads=2, train_steps=100, sample_steps=20)


def diffusing(with_protocol: WithProtocol, **changes: Any) -> ProtocolCard:
    facts = {"head": "dit", "dit": SMALL, "lr": 3e-3, "epochs": 2, "batch_size": 16} | changes
    return with_protocol(regress=RegressRecipe(**facts))


# --- noise ------------------------------------------------------------------------------------


def splitmix(seed: int, count: int) -> NDArray[np.uint64]:
    """The generator as published, one number after another."""
    mask, numbers = (1 << 64) - 1, []
    for _ in range(count):
        seed = (seed + 0x9E3779B97F4A7C15) & mask
        z = ((seed ^ (seed >> 30)) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
        numbers.append(z ^ (z >> 31))
    return np.array(numbers, np.uint64)


def test_the_hash_is_splitmix() -> None:
    assert splitmix(1234567, 2).tolist() == [6457827717110365317, 3203168211198807973]  # the published test vector
    got = _mixed(torch.tensor([1234567]) + torch.arange(1, 3) * GOLDEN)
    assert got.numpy().astype(np.uint64).tolist() == splitmix(1234567, 2).tolist()


def test_normals_are_box_muller_of_each_rows_sequence() -> None:
    rows = torch.tensor([3, 10**6])
    got = normals(-7, rows, 5)
    assert got.dtype == torch.float32
    for values, row in zip(got, rows.tolist(), strict=True):
        start = int(_mixed(torch.tensor([row - 7]))) & ((1 << 64) - 1)
        bits = splitmix(start, 5)
        high, low = (
            (part.astype(float) + 0.5) / 2**32 for part in (bits >> np.uint64(32), bits & np.uint64(2**32 - 1))
        )
        expected = np.sqrt(-2 * np.log(high)) * np.cos(2 * np.pi * low)
        np.testing.assert_allclose(values, expected, rtol=1e-5, atol=1e-6)


def test_normals_are_normal_and_independent() -> None:
    z = normals(key_of(0, "noise", 1), torch.arange(4000), 250)
    other = normals(key_of(0, "noise", 2), torch.arange(4000), 250)
    assert z.mean().item() == pytest.approx(0, abs=0.004)
    assert z.std().item() == pytest.approx(1, abs=0.004)
    assert (z**4).mean().item() == pytest.approx(3, abs=0.03)
    for shifted in (z[1:] * z[:-1], z[:, 1:] * z[:, :-1], z * other):
        assert shifted.mean().item() == pytest.approx(0, abs=0.004)


def test_noise_belongs_to_the_row() -> None:
    rows = torch.tensor([5, 900, 17, 5])
    whole = normals(1, rows, 6)
    assert torch.equal(whole[1:3], normals(1, rows[1:3], 6))
    assert torch.equal(whole[0], whole[3])
    assert torch.equal(whole[:, :4], normals(1, rows, 4))
    assert not torch.equal(whole[0], normals(2, rows, 6)[0])


def test_uniforms_are_uniform() -> None:
    u = uniforms(key_of(3, "time", 0), torch.arange(50_000))
    counts = torch.bincount((u * 10).long(), minlength=10)
    assert counts.shape == (10,)
    assert (counts / 50_000).numpy() == pytest.approx(0.1, abs=0.006)


def test_keys_differ_in_every_part() -> None:
    keys = [key_of(0, "time", 0), key_of(1, "time", 0), key_of(0, "noise", 0), key_of(0, "time", 1)]
    assert len(set(keys)) == 4
    assert all(-(2**63) <= key < 2**63 for key in keys)


# --- schedule ---------------------------------------------------------------------------------


def reference_scheduler(train_steps: int) -> Any:
    from diffusers import DDPMScheduler

    return DDPMScheduler(
        num_train_timesteps=train_steps, beta_schedule="squaredcos_cap_v2", clip_sample=True, prediction_type="epsilon"
    )


@pytest.mark.parametrize("train_steps", [1000, 50])
def test_schedule_is_diffusers(train_steps: int) -> None:
    reference, ours = reference_scheduler(train_steps), Ddpm(train_steps)
    assert torch.equal(ours.alpha_bar, reference.alphas_cumprod)
    generator = torch.Generator().manual_seed(0)
    clean, noise = torch.randn(2, train_steps, 3, 2, generator=generator)
    t = torch.arange(train_steps)
    torch.testing.assert_close(ours.noisy(clean, noise, t), reference.add_noise(clean, noise, t), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("train_steps", "count"), [(1000, 500), (1000, 1000), (1000, 37), (50, 1)])
def test_every_step_back_is_diffusers(train_steps: int, count: int) -> None:
    reference, steps = reference_scheduler(train_steps), Ddpm(train_steps).steps(count)
    reference.set_timesteps(count)
    assert [step.t for step in steps] == reference.timesteps.tolist()
    generator = torch.Generator().manual_seed(0)
    sample = torch.randn(4, 3, 2, generator=generator)
    for step in steps:
        predicted = torch.randn(4, 3, 2, generator=generator)
        noise = torch.randn(4, 3, 2, generator=torch.Generator().manual_seed(step.t))
        wanted = reference.step(predicted, step.t, sample, generator=torch.Generator().manual_seed(step.t)).prev_sample
        torch.testing.assert_close(step.back(sample, predicted, noise), wanted, rtol=1e-6, atol=1e-6)
        sample = wanted
    assert sample.abs().max() <= 1  # the last step gives the clipped clean sample


# --- network ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("steps", "dim"), [(5, 7), (45, 16), (10, 12), (1, 7)])
@pytest.mark.parametrize("inputs", [4 * 32, 196 * 768, 257 * 1024])
def test_dit_shapes_and_parameter_count(inputs: int, steps: int, dim: int) -> None:
    """Counted from the description alone, at LARYBench's size."""
    w, depth = 512, 6
    block = (w * 3 * w + 3 * w) + (w * w + w) + (w * 4 * w + 4 * w) + (4 * w * w + w)
    expected = (dim * w + w) + (256 * w + w) + (w * w + w) + (inputs * w + w) + inputs + (1 + steps) * w
    expected += depth * block + (w * dim + dim)
    with torch.device("meta"):
        network = Dit(inputs, steps, dim, width=w, depth=depth, heads=8)
        noise = network(
            torch.zeros(3, steps, dim), torch.zeros(3), torch.zeros(3, 1, inputs), torch.zeros(3, dtype=torch.bool)
        )
    assert sum(p.numel() for p in network.parameters()) == expected
    assert noise.shape == (3, steps, dim)


def test_dit_starts_by_predicting_nothing() -> None:
    torch.manual_seed(0)
    net = Dit(64, 3, 2, width=256, depth=2, heads=2)
    said = net(torch.randn(4, 3, 2), torch.arange(4), torch.randn(4, 64), torch.zeros(4, dtype=torch.bool))
    assert not said.any()
    assert net.position.std().item() == pytest.approx(256**-0.5, rel=0.1)
    assert net.tokens.weight.std().item() == pytest.approx(0.02, rel=0.05)
    hidden: Any = net.blocks[0]
    assert hidden.mlp[0].weight.abs().max().item() == pytest.approx((6 / (256 + 1024)) ** 0.5, rel=0.01)
    assert not any(bias.any() for name, bias in net.named_parameters() if name.endswith("bias"))


def test_sinusoids() -> None:
    got = sinusoids(torch.tensor([0, 998]))
    assert got.shape == (2, 256)
    assert got[0].tolist() == [1.0] * 128 + [0.0] * 128
    frequencies = 10_000 ** (-np.arange(128) / 128)
    np.testing.assert_allclose(got[1], np.r_[np.cos(998 * frequencies), np.sin(998 * frequencies)], atol=2e-4)


def test_a_dropped_row_is_told_nothing() -> None:
    torch.manual_seed(0)
    net = Dit(6, 2, 3, width=16, depth=1, heads=2)
    torch.nn.init.normal_(net.leave.weight)
    noisy, t = torch.randn(1, 2, 3).expand(3, 2, 3), torch.full((3,), 5)
    tokens = torch.randn(3, 6)
    conditioned = net(noisy, t, tokens, torch.tensor([True, True, False]))
    torch.testing.assert_close(conditioned[0], conditioned[1])
    torch.testing.assert_close(conditioned[2:], net.denoise(noisy[2:], t[2:], net.condition(tokens[2:])))
    assert not torch.allclose(conditioned[0], conditioned[2])
    (gradient,) = torch.autograd.grad(conditioned.sum(), net.nothing)
    assert gradient.abs().sum() > 0


# --- the probe --------------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["absolute", "relative"])
def test_dit_learns_a_separable_set(toy_signs: Any, with_protocol: WithProtocol, target: str) -> None:
    if target == "relative":
        for path in (toy_signs.mounts.data / "actions").iterdir():
            np.save(path, np.stack([np.full(3, 9.0), np.load(path)[1]]))
    protocol = diffusing(with_protocol, epochs=40, target=target)
    result = toy_signs.run(toy_signs.job("regress", protocol=protocol))
    score = result.splits["val"]
    assert (result.head, result.target) == ("dit", target)
    assert score.floor == pytest.approx(1, abs=0.05)
    assert score.value < 0.05
    assert np.load(toy_signs.mounts.out / "predictions_val.npy").shape == (60, 2, 1 if target == "relative" else 2, 3)
    with (toy_signs.mounts.out / "log_r0.csv").open(newline="") as file:
        training = [float(line["train_mse"]) for line in csv.DictReader(file)]
    assert training[0] > 0.5 > training[-1]  # of the noise


def test_dit_on_shuffled_targets_is_worse_than_the_mean(toy_signs: Any, with_protocol: WithProtocol) -> None:
    """It draws from the actions' distribution; without a condition that is off by twice the variance."""
    job = toy_signs.job("regress", protocol=diffusing(with_protocol, epochs=8), control="shuffled")
    assert 1 < toy_signs.run(job).splits["val"].value < 2.5


def test_predictions_depend_on_no_batch(toy_actions: Any, with_protocol: WithProtocol) -> None:
    """Trained alike and predicted in batches of 24, 7 and 1."""
    from lary_probe.data import open_data, parts_of
    from lary_probe.regress_heads import Shape, make_head_of, make_plan
    from lary_probe.session import open_session
    from lary_probe.streams import Streams
    from lary_probe.training import predict

    protocol = diffusing(with_protocol)
    job, predictions = toy_actions.job("regress", protocol=protocol), []
    with open_session(job, toy_actions.mounts, lambda event: None) as session:
        data = open_data(job, toy_actions.mounts, lambda: None)
        part, _ = parts_of(data.evaluated[0][0], np.zeros((24, 6), "float32"), None, [])
        torch.manual_seed(0)
        head = make_head_of(session, 8, Shape(2, 3))
        torch.nn.init.normal_(head.network.leave.weight, std=0.3)  # type: ignore[union-attr,arg-type]
        ticks: list[None] = []
        for batch in (24, 7, 1):
            recipe = protocol.regress.model_copy(update={"batch_size": batch})
            plan = make_plan(recipe, Shape(2, 3), 24, Streams(0), lambda: ticks.append(None))
            predictions.append(predict(session, [head], plan, part)[0][0])
        other = predict(session, [head], make_plan(recipe, Shape(2, 3), 24, Streams(1), lambda: None), part)[0][0]
    assert len(ticks) == SMALL.sample_steps * (1 + 4 + 24)
    assert predictions[0].shape == (24, 6)
    for each in predictions[1:]:
        np.testing.assert_allclose(each, predictions[0], atol=1e-5)
    assert not np.allclose(other, predictions[0], atol=1e-2)


def test_whatever_takes_long_says_what_it_is_and_is_heard_of(
    toy_actions: Any, with_protocol: WithProtocol, monkeypatch: pytest.MonkeyPatch
) -> None:
    doing, beat = list[str](), Watchdog.beat

    def noted(watchdog: Watchdog, what: str, within_s: float = 0) -> None:
        doing.append(what)
        beat(watchdog, what, within_s)

    monkeypatch.setattr(Watchdog, "beat", noted)
    toy_actions.run(toy_actions.job("regress", protocol=diffusing(with_protocol)))
    # At first, then after every file and each split's one block of rows.
    assert doing.count("reading action files") == 1 + 64 + 1 + 24 + 1
    # In each of two epochs every step of a batch of held-out rows and of two of val's.
    assert doing.count("sampling") == 2 * (1 + 2) * SMALL.sample_steps
    notes = [event.note for event in toy_actions.events if isinstance(event, Progress)]
    assert any(note.startswith("seed 0 epoch 2/2 val mse") for note in notes)
    # What is said names what comes next, not what went before.
    steps = [what for what in doing if what.startswith("training")]
    total = len(steps) - 1  # the first of the second epoch is named twice
    assert steps[:2] == [f"training, step {n} of {total}" for n in (1, 2)]
    assert doing[doing.index(steps[0]) - 1] == "preparing targets"
    assert doing[-1] == "writing the result"


def test_same_job_same_bits(toy_actions: Any, with_protocol: WithProtocol) -> None:
    job = toy_actions.job("regress", protocol=diffusing(with_protocol))
    one, two = (toy_actions.run(job).model_dump(exclude={"seconds"}) for _ in range(2))
    assert one == two


def test_two_processes_diffuse_like_one(toy_actions: Any, with_protocol: WithProtocol, warm_python: Path) -> None:
    job = toy_actions.job("regress", protocol=diffusing(with_protocol, batch_size=13))
    alone = toy_actions.run(job).splits["val"]
    path = toy_actions.mounts.job / "job.json"
    path.write_text(job.model_copy(update={"processes": 2}).to_json())
    command = [warm_python, "-m", "lary_probe", "regress", "--job", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr
    together = ProbeResult.read(toy_actions.mounts.out / "result.json").splits["val"]
    assert together.value == pytest.approx(alone.value, rel=1e-4)


@pytest.mark.parametrize(
    ("dit", "says"),
    [
        ({"width": 30, "heads": 4}, "dit width 30 is no multiple of 4 heads"),
        ({"train_steps": 10, "sample_steps": 11}, "sample_steps 11 are more than 10 train_steps"),
    ],
)
def test_a_recipe_that_fits_no_network(
    toy_actions: Any, with_protocol: WithProtocol, dit: dict[str, int], says: str
) -> None:
    with pytest.raises(ContractError, match=says):
        toy_actions.run(toy_actions.job("regress", protocol=diffusing(with_protocol, dit=DiffusionHead(**dit))))
