"""AdamW by torch's own function of it, with its defaults, without its class.

`torch.optim.AdamW` imports torch's compiler (`torch._dynamo`), which takes longer than a small probe trains: a second
of processor time or more in each process. The function does the arithmetic of the class, bit for bit.
"""

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw

BETAS, EPS = (0.9, 0.999), 1e-8
"""The defaults of `torch.optim.AdamW`."""


class _Moments(NamedTuple):
    """Of one parameter."""

    mean: Tensor
    square: Tensor
    step: Tensor
    """() float32 on the CPU: how many steps it had a gradient in."""


class AdamW:
    """The optimiser of one network; `lr` may be set before each step."""

    def __init__(self, parameters: Iterable[nn.Parameter], lr: float, weight_decay: float) -> None:
        self.lr, self._decay = lr, weight_decay
        self._moments = {parameter: _no_moments(parameter) for parameter in parameters}

    @torch.no_grad()
    def step(self) -> None:
        """Move every parameter that has a gradient."""
        moved = {parameter: own for parameter, own in self._moments.items() if parameter.grad is not None}
        adamw(
            list(moved),
            [parameter.grad for parameter in moved if parameter.grad is not None],
            [own.mean for own in moved.values()],
            [own.square for own in moved.values()],
            [],
            [own.step for own in moved.values()],
            amsgrad=False,
            beta1=BETAS[0],
            beta2=BETAS[1],
            lr=self.lr,
            weight_decay=self._decay,
            eps=EPS,
            maximize=False,
        )

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for parameter in self._moments:
            parameter.grad = None


def _no_moments(parameter: nn.Parameter) -> _Moments:
    mean, square = (torch.zeros_like(parameter, memory_format=torch.preserve_format) for _ in range(2))
    return _Moments(mean, square, torch.zeros((), dtype=torch.float32))
