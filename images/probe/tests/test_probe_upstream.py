"""Our probes against LARYBench's own training code: its accuracies, losses and errors epoch by epoch.

`upstream/trajectory.json` holds what LARYBench computed on the set of `upstream/case.py`; `upstream/make.py` says how.
"""

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lary_probe.classify import make_heads
from lary_probe.classify import make_plan as classify_plan
from lary_probe.data import open_data
from lary_probe.regress_heads import Shape, make_head_of
from lary_probe.regress_heads import make_plan as regress_plan
from lary_probe.session import open_session
from lary_probe.streams import Streams
from lary_probe.training import EpochOutput, Part, train
from lary_schema.cards import ClassifyRecipe, DiffusionHead, ProtocolCard, RegressRecipe

WithProtocol = Callable[..., ProtocolCard]
FOLDER = Path(__file__).parent / "upstream"
SEED = 5
"""Of the diffusion head's noise in `make.py`."""


def load_case() -> Any:
    spec = importlib.util.spec_from_file_location("upstream_case", FOLDER / "case.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


case = load_case()
RECORDED = json.loads((FOLDER / "trajectory.json").read_text())


@pytest.fixture
def exported(bench: Any) -> Any:
    for split, count in case.ROWS.items():
        cells = [f"class {label}" for label in case.labels(split)]
        bench.split(split, case.tokens(split), cells)
        assert len(cells) == count
    return bench


def set_start(network: torch.nn.Module, head: int = 0) -> None:
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            parameter.copy_(torch.from_numpy(case.start(name, head, parameter.shape)))


def parts(data: Any, targets: Callable[[str], Any]) -> tuple[Part, dict[str, Part]]:
    fit = Part(data.train, np.arange(case.ROWS["train"]), targets("train"))
    return fit, {"val": Part(data.evaluated[0][0], np.arange(case.ROWS["val"]), targets("val"))}


def test_the_attentive_probe_repeats_larybenchs_trajectory(exported: Any, with_protocol: WithProtocol) -> None:
    """All five heads: the order of rows, both accuracies to the last row, both losses."""
    recipe = ClassifyRecipe(
        width=case.WIDTH, depth=case.DEPTH, heads=case.HEADS, epochs=case.EPOCHS, batch_size=case.BATCH,
        optimisers=case.OPTIMISERS, autocast="none",
    )  # fmt: skip
    job = exported.job("classify", protocol=with_protocol(classify=recipe, streams="upstream"))
    recorded = RECORDED["classify"]
    with open_session(job, exported.mounts, lambda event: None) as session:
        data = open_data(job, exported.mounts, lambda: None)
        heads = make_heads(session, data.train.shape, case.CLASSES)
        for index, head in enumerate(heads):
            set_start(head.network, index)
        plan = classify_plan(recipe, case.labels("train"), Streams(0, "upstream"))
        fit, evaluated = parts(data, case.labels)
        found = list(train(session, heads, plan, fit, evaluated))
    for epoch, order in enumerate(recorded["order"]):
        assert plan.order(epoch, len(fit)).tolist() == order
    truth = case.labels("val")
    for output, wanted in zip(found, recorded["epochs"], strict=True):
        assert output.train.tolist() == pytest.approx(wanted["train"], abs=1e-9)
        assert (output.predicted["val"] == truth).mean(axis=1).tolist() == pytest.approx(wanted["val"], abs=1e-9)
        np.testing.assert_allclose(output.train_loss, wanted["train_loss"], rtol=1e-5)
        np.testing.assert_allclose(output.losses["val"], wanted["val_loss"], rtol=1e-5)
    # The five heads learn differently, so equal numbers are no accident.
    assert len(set(recorded["epochs"][-1]["train_loss"])) == 5
    assert max(recorded["epochs"][-1]["train"]) > max(recorded["epochs"][0]["train"])


def regression(
    exported: Any, recipe: RegressRecipe, order: list[list[int]], protocol: ProtocolCard
) -> list[EpochOutput]:
    job = exported.job("regress", protocol=protocol.model_copy(update={"regress": recipe}))
    with open_session(job, exported.mounts, lambda event: None) as session:
        data = open_data(job, exported.mounts, lambda: None)
        shape = Shape(case.STEPS, case.ACTIONS)
        head = make_head_of(session, case.LATENT, shape)
        set_start(head.network)
        plan = regress_plan(recipe, shape, case.ROWS["train"], Streams(SEED, "upstream"), lambda: None)
        # LARYBench's order comes from torch's global generator: the recorded one is taken.
        plan = plan.__class__(**(vars(plan) | {"order": lambda epoch, size: np.array(order[epoch])}))
        return list(train(session, [head], plan, *parts(data, case.targets)))


def check(found: list[EpochOutput], recorded: list[dict[str, float]], rtol: float) -> None:
    truth = case.targets("val").astype(np.float64)
    for output, wanted in zip(found, recorded, strict=True):
        assert output.train_loss[0] == pytest.approx(wanted["train_loss"], rel=rtol)
        assert np.square(output.predicted["val"][0] - truth).mean() == pytest.approx(wanted["val"], rel=rtol)


def test_the_mlp_repeats_larybenchs_trajectory(exported: Any, with_protocol: WithProtocol) -> None:
    sizes = case.MLP
    recipe = RegressRecipe(
        width=sizes["width"], blocks=sizes["blocks"], epochs=sizes["epochs"], batch_size=sizes["batch"], lr=case.LR,
        weight_decay=case.DECAY,
    )  # fmt: skip
    recorded = RECORDED["mlp"]
    check(regression(exported, recipe, recorded["order"], with_protocol()), recorded["epochs"], 1e-5)


def test_the_dit_repeats_larybenchs_trajectory(exported: Any, with_protocol: WithProtocol) -> None:
    """Its 500 steps of sampling included; random draws are ours on both sides."""
    sizes = case.DIT
    dit = DiffusionHead(width=sizes["width"], depth=sizes["depth"], heads=sizes["heads"])
    recipe = RegressRecipe(
        head="dit", dit=dit, epochs=sizes["epochs"], batch_size=sizes["batch"], lr=case.LR, weight_decay=case.DECAY
    )
    recorded = RECORDED["dit"]
    check(regression(exported, recipe, recorded["order"], with_protocol()), recorded["epochs"], 1e-3)
