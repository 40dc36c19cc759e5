"""One formula for the statistics of actions: numpy's digits of one array, the same of parts added up."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lary_schema.action_statistics import Moments, divisor
from lary_schema.base import ContractError


@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=2),
    st.integers(1, 9),
    st.sampled_from([1e-9, 1.0, 1e6]),
    st.integers(0, 2**32 - 1),
)
def test_of_one_array_they_are_numpys_bit_for_bit(shape: list[int], dim: int, offset: float, seed: int) -> None:
    values = offset + np.random.default_rng(seed).normal(size=(*shape, dim))
    axes = tuple(range(len(shape)))
    found = Moments.of(values)
    assert found.count == np.prod(shape)
    assert found.mean.tobytes() == values.mean(axis=axes).tobytes()
    assert found.std.tobytes() == values.std(axis=axes).tobytes()


@given(st.lists(st.integers(1, 6), min_size=2, max_size=5), st.integers(0, 2**32 - 1))
def test_moments_add_up(counts: list[int], seed: int) -> None:
    # Far from zero and narrow: sums of squares would lose all digits.
    values = 1e6 + np.random.default_rng(seed).normal(size=(sum(counts), 3))
    parts = np.split(values, np.cumsum(counts)[:-1])
    total = Moments.of(parts[0])
    for part in parts[1:]:
        total = total + Moments.of(part)
    assert total.count == len(values)
    assert total.mean == pytest.approx(values.mean(0), rel=1e-14)
    assert total.m2 == pytest.approx(((values - values.mean(0)) ** 2).sum(0), rel=1e-6)


def test_a_dimension_that_does_not_move_is_divided_by_one() -> None:
    values = np.array([[1.0, 5.0], [3.0, 5.0]])
    assert divisor(Moments.of(values).std).tolist() == [1.0, 1.0]
    assert Moments.of(values * 2).as_json() == {"count": 2, "mean": [4.0, 10.0], "std": [2.0, 1.0]}


@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("large", [1e200, -1e200, 1.5e308])
def test_actions_beyond_squares_are_refused(parts: int, large: float) -> None:
    """No `Infinity` in a file of statistics, which would be no JSON, and no scores of targets that are all 0."""
    total = None
    for part in np.split(np.array([[0.0, 1.0], [large, 2.0], [0.0, 3.0], [large, 4.0]]), parts):
        total = Moments.of(part) if total is None else total + Moments.of(part)
    assert total is not None
    with pytest.raises(ContractError, match="too large for a standard deviation"):
        total.as_json()
