"""Batches of latents: the same values from memory, from files and from both, in memory that is used again."""

from typing import Any

import numpy as np
import pytest
import torch
from lary_probe import latents as module
from lary_probe.latents import Latents, open_latents
from lary_schema.base import ContractError

CPU = torch.device("cpu")
ROWS = 30
SIZES = [(), (5,), (5, 5, 2), (4,) * 7, (1, 7, 3), (30,)]


def opened(bench: Any, tokens: Any, share: float = 0.0, **options: Any) -> Latents:
    split = bench.split("train", tokens, ["x"] * len(tokens), **options)
    found = open_latents(split, bench.mounts.latents, time_axis=True)
    found.load(int(share * len(found)), lambda: None)
    return found


@pytest.mark.parametrize("large", [1, 1 << 15])
@pytest.mark.parametrize("share", [0, 0.4, 1])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_batches_are_the_rows(
    bench: Any, monkeypatch: pytest.MonkeyPatch, dtype: str, share: float, large: int
) -> None:
    monkeypatch.setattr(module, "LARGE_ROW", large)
    rng = np.random.default_rng(0)
    tokens = (100 * rng.normal(size=(ROWS, 2, 3, 4))).astype(dtype)
    latents = opened(bench, tokens, share, dtype=dtype, failed=(3, 29), shard_rows=8)
    wanted = torch.from_numpy(tokens[latents.rows]).float()
    for sizes in SIZES:
        parts = [rng.integers(0, len(latents), size) for size in sizes]
        # As training does: nothing of a batch is looked at after the next one was requested.
        found = [(batch.clone(), batch.dtype) for batch in latents.batches(parts, CPU)]
        assert len(found) == len(parts)
        for (batch, kind), part in zip(found, parts, strict=True):
            assert kind == torch.float32
            assert torch.equal(batch, wanted[part])
            assert torch.equal(latents.batch(part), torch.from_numpy(tokens[latents.rows[part]]))


@pytest.mark.parametrize("share", [0, 1])
def test_memory_is_used_again_by_every_epoch_and_split(bench: Any, share: float) -> None:
    latents = opened(bench, np.random.default_rng(0).normal(size=(ROWS, 2, 3, 4)), share)
    order = np.arange(ROWS)
    used = set()
    for inference in (True, False, True):
        with torch.inference_mode(inference):
            for batch in latents.batches(np.split(order, [8, 16, 24]), CPU):
                used.add(batch.data_ptr())
                assert not batch.is_inference(), "training must be able to use it"
    assert len(used) <= 3


def test_who_stops_early_leaves_the_memory_to_others(bench: Any) -> None:
    latents = opened(bench, np.arange(ROWS * 24.0).reshape(ROWS, 2, 3, 4))
    parts = np.split(np.arange(ROWS), 6)
    first = next(latents.batches(parts, CPU)).clone()
    for batch, part in zip(latents.batches(parts, CPU), parts, strict=True):
        assert torch.equal(batch, latents.batch(part))
    assert torch.equal(first, latents.batch(parts[0]))


@pytest.mark.parametrize("values", [[np.nan], [np.inf], [-np.inf], [np.inf, -np.inf], [-np.nan]])
@pytest.mark.parametrize("share", [0, 0.4, 1])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_values_that_are_not_finite_are_refused_by_row(
    bench: Any, dtype: str, share: float, values: list[float]
) -> None:
    tokens = np.random.default_rng(0).normal(size=(ROWS, 1, 2, 4))
    tokens[17, 0, 1, : len(values)] = values
    with pytest.raises(ContractError, match="row 17 is marked ok and holds values that are not finite"):
        list(opened(bench, tokens, share, dtype=dtype).batches([np.array([1, 2]), np.array([20, 17, 1])], CPU))


@pytest.mark.parametrize("share", [0, 0.4, 1])
def test_a_sum_that_overflows_is_no_fault(bench: Any, share: float) -> None:
    tokens = np.full((ROWS, 1, 2, 4), 3e38, np.float32)
    latents = opened(bench, tokens, share)
    (batch,) = latents.batches([np.arange(ROWS)], CPU)
    assert torch.equal(batch, torch.from_numpy(tokens))


def test_damage_is_named_whoever_reads(bench: Any) -> None:
    latents = opened(bench, np.random.default_rng(0).normal(size=(ROWS, 1, 2, 4)))
    (shard, *_) = sorted(path for path in (bench.mounts.latents).rglob("tokens/c/*/*/*/*") if path.is_file())
    content = bytearray(shard.read_bytes())
    content[5] ^= 1
    shard.write_bytes(content)
    with pytest.raises(ContractError, match="tokens: damaged"):
        list(latents.batches([np.arange(4)], CPU))
