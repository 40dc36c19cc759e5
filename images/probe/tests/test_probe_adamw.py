"""The probes' optimiser: the bits of torch's class, without what that imports."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import pytest
import torch
from lary_probe.adamw import AdamW
from torch import nn

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
ONE_STEP = """
import sys, torch
import lary_probe.run, lary_probe.classify_outputs, lary_probe.regress_outputs
from lary_probe.adamw import AdamW
from lary_probe.session import make_accelerator, make_deterministic
make_deterministic("cpu", 1)
accelerator = make_accelerator("cpu")
network = torch.nn.Linear(3, 2)
optimiser = AdamW(network.parameters(), 0.1, 0.01)
accelerator.backward(torch.nn.functional.huber_loss(network(torch.ones(4, 3)), torch.zeros(4, 2)))
optimiser.step()
optimiser.zero_grad()
accelerator.reduce(accelerator.gather(torch.ones(2)))
accelerator.end_training()
print([name for name in ("torch._dynamo", "torch._inductor", "matplotlib") if name in sys.modules])
"""


def _network(dtype: torch.dtype, device: str) -> nn.ParameterList:
    """Of different shapes; the last two have no gradient in some steps, or never."""
    torch.manual_seed(1)
    shapes = [(5, 7), (5,), (), (2, 3, 4), (6,), (3,)]
    return nn.ParameterList(nn.Parameter(torch.randn(shape, dtype=dtype, device=device)) for shape in shapes)


def _trained(parameters: nn.ParameterList, step: Callable[[float], None], forget: Callable[[], None]) -> Iterator[Any]:
    generator = torch.Generator().manual_seed(2)
    for number in range(7):
        for at, parameter in enumerate(parameters):
            if at < 4 or (at == 4 and number % 3):
                gradient = torch.randn(parameter.shape, generator=generator).to(parameter) * 10.0 ** (number - 4)
                (parameter * gradient).sum().backward()
        step(0.1 / (number + 1) if number else 0.0)
        forget()
        assert all(parameter.grad is None for parameter in parameters)
        yield [parameter.detach().clone() for parameter in parameters]


@pytest.mark.parametrize(("decay", "dtype", "device"), [*product((0.0, 0.3), (torch.float32, torch.float64), DEVICES)])
def test_it_is_torchs_adamw_bit_for_bit(decay: float, dtype: torch.dtype, device: str) -> None:
    own, theirs = _network(dtype, device), _network(dtype, device)
    ours = AdamW(own, 0.1, decay)
    reference = torch.optim.AdamW(theirs, lr=0.1, weight_decay=decay)

    def step(lr: float) -> None:
        ours.lr = lr
        ours.step()

    def reference_step(lr: float) -> None:
        reference.param_groups[0]["lr"] = lr
        reference.step()

    before = [parameter.detach().clone() for parameter in own]
    steps = zip(_trained(own, step, ours.zero_grad), _trained(theirs, reference_step, reference.zero_grad), strict=True)
    for mine, wanted in steps:
        assert all(torch.equal(a, b) for a, b in zip(mine, wanted, strict=True))
    assert [not torch.equal(a, b) for a, b in zip(before, mine, strict=True)] == [True] * 5 + [False]


def test_a_probe_does_without_torchs_compiler() -> None:
    """Its import takes longer than a small probe trains; matplotlib's is left to where a picture is drawn."""
    done = subprocess.run([sys.executable, "-c", ONE_STEP], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
