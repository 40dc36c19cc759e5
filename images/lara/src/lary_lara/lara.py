"""The trainee `lara`: a tokenizer that is trained on together with a policy, or with a regression of the actions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lary_schema.base import ContractError
from lary_trainer.trainee import Batch, Outputs

from lary_lara.facts import model_card
from lary_lara.joint_facts import TERMS, LaraConfig, read_joint_config
from lary_lara.moto import MotoTrainee

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    import numpy as np
    import torch
    from lary_schema.cards import ModelCard
    from lary_schema.training import Recipe, Supervision
    from numpy.typing import NDArray
    from torch import nn

    from lary_lara.joint import JointNetwork


class LaraTrainee(MotoTrainee):
    """Terms: `flow`, `alignment`, `regression`, `pixels`, `quantiser`; those that a switch turns off are 0.

    Parameter groups: `lam`, `policy` (with the regression's layer).
    """

    config: LaraConfig

    @classmethod
    def read_config(cls, recipe: Recipe) -> LaraConfig:
        return read_joint_config(recipe)

    @classmethod
    def card(cls, recipe: Recipe) -> ModelCard:
        return model_card(recipe, cls.read_config(recipe))

    @classmethod
    def supervision(cls, recipe: Recipe) -> Supervision:
        return "joint" if cls.read_config(recipe).policy == "flow" else "weak"

    @classmethod
    def reads_text(cls, recipe: Recipe) -> bool:
        config = cls.read_config(recipe)
        return config.policy == "flow" and config.instruction

    # --- the network ------------------------------------------------------------------------------

    def build(self, init: Mapping[str, Path], device: torch.device) -> nn.Module:
        from lary_lara.joint import make_joint

        if self.facts.action_shape is None:
            raise ContractError(f"recipe {self.recipe.key} trains on actions, and the data give none")
        tokenizer = self.build_tokenizer(self.config.tokenizer, init)
        self.perceptual = self._perceptual(init, device)
        return make_joint(self.config, tokenizer, self.facts, self.seed).to(device)

    def parameter_groups(self, network: nn.Module) -> dict[str, list[nn.Parameter]]:
        groups: dict[str, list[nn.Parameter]] = {"lam": [], "policy": []}
        for name, parameter in network.named_parameters():
            if parameter.requires_grad:
                groups["lam" if name.startswith("tokenizer.") else "policy"].append(parameter)
        return groups

    # --- a step -----------------------------------------------------------------------------------

    def forward(self, network: nn.Module, batch: Batch) -> Outputs:
        joint = _joint(network)
        outputs = self.forward_tokenizer(joint.tokenizer, batch)
        return outputs | joint.action_outputs(batch, outputs["embeddings"], "flow", batch.step)

    def losses(self, outputs: Outputs, batch: Batch) -> dict[str, torch.Tensor]:
        terms = super().losses(outputs, batch)
        known = outputs["labelled"] > 0
        if known.any():
            terms |= self._action_losses(outputs, batch, known)
        off = (TERMS & set(self.recipe.losses)) - set(terms)
        return terms | {name: outputs["pixels"].new_zeros(()) for name in off}

    def _action_losses(self, outputs: Outputs, batch: Batch, known: torch.Tensor) -> dict[str, torch.Tensor]:
        """Over the rows whose actions are known. What joins embedding and policy may be of two rows (`pairing`)."""
        from lary_lara.alignment import RELATIVE, alignment_loss, policy_rows

        terms, count = {}, int(known.sum())
        if "flow" in outputs:
            rows = policy_rows(self.config, batch, count, relative=self.config.alignment in RELATIVE)
            terms["flow"] = outputs["flow"][known].mean()
            terms["alignment"] = alignment_loss(
                self.config, outputs["aligned"][known][rows], outputs["embeddings"].flatten(1)[known]
            )
        if "regressed" in outputs and batch.actions is not None:
            actions = batch.actions[known].flatten(1)
            actions = actions[policy_rows(self.config, batch, count, relative=False)]
            terms["regression"] = (outputs["regressed"][known] - actions).square().mean()
        return terms

    def after_step(self, network: nn.Module, outputs: Outputs, batch: Batch) -> None:
        if self.config.lam == "trained":
            super().after_step(_joint(network).tokenizer, outputs, batch)

    # --- what comes of it -------------------------------------------------------------------------

    def evaluate(self, network: nn.Module, batches: Callable[[], Iterable[Batch]]) -> dict[str, float]:
        from lary_lara.joint_measures import measure_actions
        from lary_lara.measures import measures_of, read_held_out

        joint = _joint(network)
        read = read_held_out(joint.tokenizer, batches)
        return measures_of(joint.tokenizer, batches, read) | measure_actions(joint, batches, read.embeddings)

    def picture(self, network: nn.Module, batches: Callable[[], Iterable[Batch]]) -> NDArray[np.uint8] | None:
        return super().picture(_joint(network).tokenizer, batches)

    def health(self, measured: Mapping[str, float]) -> list[str]:
        found = super().health(measured)
        if measured.get("centred_cosine", 1.0) < 0.05 and measured.get("raw_cosine", 0.0) > 0.9:
            found.append(
                f"raw cosine {measured['raw_cosine']:.2f}, centred {measured['centred_cosine']:.2f}: policy and "
                "embedding are aligned with a constant, not with each other"
            )
        return found

    def export(self, network: nn.Module) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        from lary_lara.checkpoint import config_document

        joint = _joint(network)
        own = {name: t for name, t in joint.state_dict().items() if not name.startswith("tokenizer.")}
        # What a policy's standardised actions are turned back by.
        actions = self.facts.actions
        moments = {"action_mean": actions.mean.tolist(), "action_std": actions.std.tolist()} if actions else {}
        shape = {"action_shape": list(joint.action_shape), "words": list(self.facts.words)}
        policy = self.config.own | shape | moments
        return joint.tokenizer.kept_state() | own, config_document(self.recipe, self.config.tokenizer, policy)


def _joint(network: nn.Module) -> JointNetwork:
    from lary_lara.joint import JointNetwork

    if not isinstance(network, JointNetwork):
        raise ContractError(f"a JointNetwork is expected, not {type(network).__name__}")
    return network
