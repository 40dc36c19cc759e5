"""What recipes may say of the joint stage, beside the tokenizer's own settings. Without torch."""

from typing import Any, Literal, Self

from lary_parts.settings import check_losses
from lary_schema.base import ContractError
from lary_schema.training import Recipe
from pydantic import Field, model_validator

from lary_lara.facts import LPIPS_TERM, MotoConfig


class LaraConfig(MotoConfig):
    """A tokenizer that is trained together with a policy. The tokenizer's settings must be those of its start."""

    alignment: Literal["cosine", "centred", "contrastive"] = "cosine"
    """Of the policy's hidden state with the embedding: as released; both less their mean over the batch; and each to
    tell its own row from the others of the batch."""
    stop_gradient: Literal["none", "lam", "policy"] = "none"
    """The side of the alignment that it does not train."""
    temperature: float = Field(default=0.1, gt=0)
    """Of the contrastive alignment."""
    alignment_layer: int = -3
    """Of the list of hidden states: the input, then every block's output."""
    alignment_token: int = -1
    """Of the action tokens."""
    pairing: Literal["own", "permuted"] = "own"
    """`permuted`, a control: each embedding goes with the policy's sample (frame, instruction, actions) of another row
    of the batch, anew at every step."""
    lam: Literal["trained", "frozen"] = "trained"
    policy: Literal["flow", "none"] = "flow"
    action_head: Literal["none", "linear"] = "none"
    """`linear`: the actions are read from the embedding by one layer."""
    instruction: bool = True
    """Whether the policy reads the instruction's words."""
    policy_width: int = Field(default=64, ge=4)
    policy_blocks: int = Field(default=4, ge=2)
    policy_heads: int = Field(default=4, ge=1)

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        if self.policy_width % self.policy_heads or self.policy_width % 4:
            raise ValueError(f"policy_width {self.policy_width} is no multiple of 4 and of policy_heads")
        if not -self.policy_blocks - 1 <= self.alignment_layer <= self.policy_blocks:
            raise ValueError(
                f"alignment_layer {self.alignment_layer} is none of {self.policy_blocks + 1} hidden states"
            )
        if self.policy == "none" and self.action_head == "none":
            raise ValueError("policy: none needs action_head: linear; else moto trains the tokenizer alone")
        if self.latent == "none":
            raise ValueError("latent: none leaves nothing to align; it is a switch of moto")
        return self

    @property
    def tokenizer(self) -> MotoConfig:
        """The tokenizer's own settings."""
        return MotoConfig.model_validate({name: getattr(self, name) for name in MotoConfig.model_fields})

    @property
    def own(self) -> dict[str, Any]:
        """The others."""
        return {k: v for k, v in self.model_dump(mode="json").items() if k not in MotoConfig.model_fields}


def computed_terms(config: LaraConfig) -> set[str]:
    """The terms that a configuration gives a value; the others of `TERMS` are 0 in it."""
    terms = {"pixels", "quantiser"}
    if config.policy == "flow":
        terms |= {"flow", "alignment"}
    return terms | ({"regression"} if config.action_head == "linear" else set())


TERMS = {"flow", "alignment", "regression", "pixels", "quantiser"}


def read_joint_config(recipe: Recipe) -> LaraConfig:
    """Raises ContractError naming unknown keys, values that do not fit and terms without a weight."""
    config = LaraConfig.parse(recipe.config, f"recipe {recipe.key}: config")
    needed = computed_terms(config)
    check_losses(recipe, needed, TERMS - needed | {LPIPS_TERM})
    if config.lam == "frozen" and config.policy == "none" and not recipe.losses["regression"]:
        raise ContractError(f"recipe {recipe.key}: nothing is trained; give losses.regression a weight")
    return config
