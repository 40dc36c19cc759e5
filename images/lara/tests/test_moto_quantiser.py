"""The quantiser of the tokenizer: nearness, start from data, running means, restarts."""

import pytest
import torch
from lary_lara.moto import MotoTrainee
from lary_parts.quantiser import UNUSED_STEPS, VectorQuantiser, quantiser_loss
from lary_parts.settings import Quantiser
from lary_schema.base import ContractError
from lary_trainer.chance import stream

from .test_moto import EMA, recipe, vectors

# --- the quantiser ----------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["legacy", "standard"])
def test_the_order_says_where_the_factor_stands(order: str) -> None:
    embeddings, codes = vectors(4, 3, 2).requires_grad_(), vectors(4, 3, 2, seed=1).requires_grad_()
    quantiser_loss(Quantiser(order=order), embeddings, codes).backward()  # type: ignore[arg-type]
    towards = 2 * (embeddings - codes).detach() / embeddings.numel()
    factor = {"legacy": (1.0, 0.25), "standard": (0.25, 1.0)}[order]
    torch.testing.assert_close(embeddings.grad, factor[0] * towards)
    torch.testing.assert_close(codes.grad, -factor[1] * towards)


def test_codes_are_the_nearest() -> None:
    quantiser = VectorQuantiser(7, 3, Quantiser())
    embeddings = vectors(5, 4, 3)
    found = quantiser(embeddings)
    table = quantiser.embedding.weight
    expected = (embeddings[:, :, None] - table).square().sum(-1).argmin(-1)
    assert torch.equal(found.indices, expected)
    assert torch.equal(found.codes, table[expected])


def started(codes: int = 6) -> VectorQuantiser:
    quantiser = VectorQuantiser(codes, 2, Quantiser.model_validate(EMA))
    for step in range(5):
        assert not quantiser.quantises
        quantiser.update(vectors(4, 3, 2), torch.zeros(4, 3, dtype=torch.int64), step, stream(0, "t", step))
    return quantiser


def test_codes_start_from_the_data_of_the_last_continuous_step() -> None:
    quantiser = started()
    assert quantiser.quantises
    rows = {tuple(row) for row in vectors(4, 3, 2).flatten(0, 1).tolist()}
    codes = [tuple(row) for row in quantiser.embedding.weight.tolist()]
    assert set(codes) <= rows
    assert len(set(codes)) == 6


def test_running_means_reach_the_mean_of_what_is_assigned() -> None:
    quantiser = started(2)
    points = torch.tensor([[[-1.0, 0.0], [-3.0, 0.0], [5.0, 1.0]]])
    for step in range(5, 900):
        quantiser.update(points, torch.tensor([[0, 0, 1]]), step, stream(0, "t", step))
    torch.testing.assert_close(quantiser.embedding.weight, torch.tensor([[-2.0, 0.0], [5.0, 1.0]]), atol=1e-3, rtol=0)


def test_a_code_unused_for_fifty_steps_starts_again_from_the_batch() -> None:
    quantiser = started()
    used, points = torch.zeros(4, 3, dtype=torch.int64), vectors(4, 3, 2, seed=3)
    before = quantiser.embedding.weight[1:].clone()
    for step in range(5, 5 + UNUSED_STEPS - 1):
        quantiser.update(points, used, step, stream(0, "t", step))
    torch.testing.assert_close(quantiser.embedding.weight[1:], before, rtol=1e-4, atol=1e-4)
    quantiser.update(points, used, 5 + UNUSED_STEPS, stream(0, "t", 0))
    rows = {tuple(row) for row in points.flatten(0, 1).tolist()}
    assert {tuple(row) for row in quantiser.embedding.weight[1:].tolist()} <= rows
    assert quantiser.unused_steps[1:].tolist() == [0] * 5


def test_data_need_a_batch() -> None:
    with pytest.raises(ContractError, match="continuous_steps must be 1 or more"):
        MotoTrainee.card(recipe(quantiser={"kind": "ema", "start": "data"}))
