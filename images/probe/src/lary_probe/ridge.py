"""Ridge regression in closed form, in float64: standardised features, whichever of the two forms is smaller.

With features Z (n, D), standardised by the rows they are fitted on, and centred targets Y (n, out), weights W minimise
`|Y - Z W|^2 / (n D) + strength |W|^2` (Hoerl and Kennard 1970). Of D <= n features the normal equations are solved,
`(Z'Z + n D strength) W = Z'Y`; of more the dual ones, `(Z Z' + n D strength) A = Y` with W = Z'A (Saunders et al.
1998). Z is never held: blocks of it are made as they are needed.

Memory besides the rows as they are stored: three float64 matrices of min(n, D)^2, and D (out + 2) float64 numbers.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

STRENGTHS = tuple(10.0 ** (half / 2) for half in range(4, -13, -1))
"""100 to 1e-6, the strongest first. The mean eigenvalue of `Z'Z / n D` is 1 / D, the largest at most 1."""
BLOCK_BYTES = 64 << 20
"""Of a float64 block of Z."""

Tick = Callable[[], None]


@dataclass(frozen=True)
class Linear:
    """`(x - mean) * scale @ weight + bias`, all float64."""

    mean: Tensor
    """(D,)"""
    scale: Tensor
    """(D,) 1 / standard deviation; 0 for a feature that does not vary."""
    weight: Tensor
    """(D, out)"""
    bias: Tensor
    """(out,)"""

    def __call__(self, rows: Tensor) -> Tensor:
        """(b, out) float64 of rows (b, D)."""
        return (rows.double() - self.mean) * self.scale @ self.weight + self.bias


class Ridge:
    """Fits of one set of rows, of any strength."""

    def __init__(self, rows: Tensor, targets: Tensor, tick: Tick) -> None:
        """`rows` (n, D) of any float dtype and `targets` (n, out) float64, on one device; `tick` is called often."""
        self.rows, self.tick = rows, tick
        self.bias = targets.mean(dim=0)
        self.targets = targets - self.bias
        self.mean, self.scale = self._statistics()
        self.dual = rows.shape[1] > rows.shape[0]
        self.gram, self.right = self._equations()

    def fit(self, strength: float) -> Linear:
        """The weights of one strength."""
        damped = self.gram.clone()
        damped.diagonal().add_(strength * self.rows.shape[0] * self.rows.shape[1])
        found = torch.cholesky_solve(self.right, torch.linalg.cholesky(damped))
        self.tick()
        if self.dual:
            found = torch.cat([block.T @ found for block in self._columns()])
        return Linear(self.mean, self.scale, found, self.bias)

    def _statistics(self) -> tuple[Tensor, Tensor]:
        means, scales = [], []
        for columns in torch.split(self.rows, self._width(), dim=1):
            values = columns.double()
            deviation, mean = torch.std_mean(values, dim=0, correction=0)
            # Rounding gives equal values a deviation of 1e-17, and everything that differs later would be enormous.
            varies = values.amin(dim=0) != values.amax(dim=0)
            means.append(mean)
            scales.append(torch.where(varies, 1 / deviation, 0.0))
            self.tick()
        return torch.cat(means), torch.cat(scales)

    def _equations(self) -> tuple[Tensor, Tensor]:
        """The matrix of the smaller form without its diagonal term, and the right hand side."""
        size, out = min(self.rows.shape), self.targets.shape[1]
        gram = self.targets.new_zeros(size, size)
        if self.dual:
            for block in self._columns():
                gram.addmm_(block, block.T)
            return gram, self.targets
        right = self.targets.new_zeros(size, out)
        for start, rows in self._blocks():
            gram.addmm_(rows.T, rows)
            right.addmm_(rows.T, self.targets[start : start + len(rows)])
        return gram, right

    def _blocks(self) -> Iterator[tuple[int, Tensor]]:
        """Z by rows, each block with its first row."""
        height = max(1, BLOCK_BYTES // (8 * self.rows.shape[1]))
        for start in range(0, len(self.rows), height):
            yield start, (self.rows[start : start + height].double() - self.mean) * self.scale
            self.tick()

    def _columns(self) -> Iterator[Tensor]:
        """Z by columns, (n, width) each."""
        start = 0
        for columns in torch.split(self.rows, self._width(), dim=1):
            stop = start + columns.shape[1]
            yield (columns.double() - self.mean[start:stop]) * self.scale[start:stop]
            start = stop
            self.tick()

    def _width(self) -> int:
        return max(1, BLOCK_BYTES // (8 * len(self.rows)))


def needed_bytes(rows: int, features: int, out: int, itemsize: int) -> int:
    """What fitting takes, but for single blocks; `itemsize` is that of the rows as they are stored."""
    return rows * features * itemsize + 8 * (3 * min(rows, features) ** 2 + features * (out + 2))


def best_strength(errors: Sequence[float]) -> int:
    """Position in `STRENGTHS` of the least error; of equal ones the strongest."""
    return min(range(len(errors)), key=errors.__getitem__)
