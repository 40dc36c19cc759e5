"""The learning rate of every step, and the optimiser that it is set in."""

import math
from collections.abc import Mapping

import torch
from lary_schema.base import ContractError
from lary_schema.training import Optimiser, Recipe
from torch import nn


def factor(optimiser: Optimiser, step: int, steps: int) -> float:
    """What the rate is multiplied by at a step (0 the first): a linear rise, then `schedule`."""
    if step < optimiser.warmup:
        return (step + 1) / optimiser.warmup
    if optimiser.schedule == "constant":
        return 1.0
    done = (step - optimiser.warmup) / max(1, steps - 1 - optimiser.warmup)
    return optimiser.final + (1 - optimiser.final) * (1 + math.cos(math.pi * done)) / 2


class Rates:
    """Sets rates. Base rates are kept here: torch's groups are the very dictionaries that a rate is written to, and
    one that is read back and multiplied again decays by itself."""

    def __init__(self, recipe: Recipe, names: list[str]) -> None:
        """`names` of the parameter groups. Raises ContractError for a factor that belongs to none."""
        scale = recipe.optimiser.scale
        if unknown := sorted(set(scale) - set(names)):
            raise ContractError(
                f"recipe {recipe.key}: optimiser.scale names {', '.join(unknown)}; its trainee has the parameter "
                f"groups {', '.join(sorted(names))}"
            )
        self._recipe = recipe
        self._base = {name: recipe.optimiser.lr * scale.get(name, 1.0) for name in names}

    def at(self, step: int) -> dict[str, float]:
        """By group."""
        now = factor(self._recipe.optimiser, step, self._recipe.steps)
        return {name: base * now for name, base in self._base.items()}

    def set(self, optimiser: torch.optim.Optimizer, step: int) -> None:
        rates = self.at(step)
        for group in optimiser.param_groups:
            group["lr"] = rates[group["name"]]


def make_optimiser(
    recipe: Recipe, groups: Mapping[str, list[nn.Parameter]], network: nn.Module
) -> tuple[torch.optim.Optimizer, Rates]:
    """Raises ContractError where groups leave out a trainable parameter or name one twice."""
    _require_each_once(recipe, groups, network)
    settings = recipe.optimiser
    given = [{"params": params, "name": name, "lr": settings.lr} for name, params in groups.items() if params]
    if not given:
        raise ContractError(f"recipe {recipe.key}: the network has no parameter to train")
    kind = torch.optim.AdamW if settings.kind == "adamw" else torch.optim.Adam
    optimiser = kind(given, lr=settings.lr, betas=settings.betas, weight_decay=settings.weight_decay)
    return optimiser, Rates(recipe, list(groups))


def _require_each_once(recipe: Recipe, groups: Mapping[str, list[nn.Parameter]], network: nn.Module) -> None:
    names = {id(parameter): name for name, parameter in network.named_parameters() if parameter.requires_grad}
    given = [id(parameter) for params in groups.values() for parameter in params]
    missing = [name for key, name in names.items() if key not in given]
    foreign = [key for key in given if key not in names]
    if missing or foreign or len(set(given)) != len(given):
        what = (
            f"leave out {', '.join(missing[:5])}" if missing else "name a parameter twice, or one that is not trained"
        )
        raise ContractError(f"recipe {recipe.key}: the trainee's parameter_groups {what}; each belongs in one group")
