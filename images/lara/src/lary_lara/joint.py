"""The tokenizer and what is trained with it: a policy with the layer of its alignment, or a layer of regression."""

from __future__ import annotations

import torch
from lary_parts.encoders import draw_weights
from lary_parts.flow import draw_flow
from lary_parts.layers import sines
from lary_parts.words import word_numbers
from lary_trainer.trainee import Batch, Facts, Outputs
from torch import Tensor, nn

from lary_lara.joint_facts import LaraConfig
from lary_lara.network import Tokenizer
from lary_lara.policy import FlowPolicy


class JointNetwork(nn.Module):
    """The policy sees the first frame by the tokenizer's own frozen encoder."""

    policy: FlowPolicy | None
    alignment: nn.Linear | None
    regression: nn.Linear | None

    def __init__(self, config: LaraConfig, tokenizer: Tokenizer, facts: Facts) -> None:
        super().__init__()
        assert facts.action_shape is not None
        self.config, self.action_shape = config, facts.action_shape
        self.known_words = facts.words if config.instruction else ()
        self.tokenizer = tokenizer
        latent = config.queries * config.code_width
        numbers = self.action_shape[0] * self.action_shape[1]
        self.policy = self.alignment = None
        if config.policy == "flow":
            encoder, width = tokenizer.image_encoder, config.policy_width
            self.policy = FlowPolicy(
                width, config.policy_blocks, config.policy_heads, self.action_shape, encoder.width,
                len(self.known_words),
            )  # fmt: skip
            self.alignment = nn.Linear(width, latent)
        self.regression = nn.Linear(latent, numbers) if config.action_head == "linear" else None

    def condition(self, frames: Tensor, text: tuple[str, ...]) -> tuple[Tensor, Tensor]:
        """uint8 (B, S, S, 3) and texts -> the policy's context and which of its tokens there are."""
        assert self.policy is not None
        tokenizer = self.tokenizer
        features = tokenizer.features(tokenizer.pixels(frames))
        positions = None
        if tokenizer.image_encoder.positions:
            positions = sines(tokenizer.config.side, self.config.policy_width, features)
        said = word_numbers(text if self.config.instruction else (), self.known_words, len(frames))
        return self.policy.condition(features, positions, said.to(frames.device))

    def action_outputs(self, batch: Batch, embeddings: Tensor, purpose: str, step: int) -> Outputs:
        """By row: the policy's squared error, the state that is aligned, actions as the regression reads them from the
        embedding (B, S * A), and whose actions are known (1 or 0)."""
        if batch.actions is None or batch.labelled is None:
            return {"labelled": torch.zeros(len(batch.frames), device=batch.frames.device)}
        actions = torch.where(batch.labelled[:, None, None], batch.actions, 0.0)
        outputs: Outputs = {"labelled": batch.labelled.float()}
        if self.regression is not None:
            outputs["regressed"] = self.regression(embeddings.flatten(1))
        if self.policy is not None:
            context, seen = self.condition(batch.frames[:, 0], batch.text)
            outputs |= self.flow(batch, actions, context, seen, purpose, step)
        return outputs

    def flow(self, batch: Batch, actions: Tensor, context: Tensor, seen: Tensor, purpose: str, step: int) -> Outputs:
        """`flow` (B,), squared error of the velocity; `aligned` (B, Q * D), what the alignment reads."""
        assert self.policy is not None
        assert self.alignment is not None
        times, noise = draw_flow(batch, purpose, step, self.action_shape)
        part = times[:, None, None]
        velocity, hidden = self.policy((1 - part) * noise + part * actions, times, context, seen)
        chosen = hidden[self.config.alignment_layer][:, self.config.alignment_token]
        error = (velocity - (actions - noise)).square().flatten(1).mean(1)
        return {"flow": error, "aligned": self.alignment(chosen)}


def make_joint(config: LaraConfig, tokenizer: Tokenizer, facts: Facts, seed: int) -> JointNetwork:
    """First weights of what is new are drawn from `seed`; a tokenizer that is not to be trained is frozen."""
    network = JointNetwork(config, tokenizer, facts)
    for name, part in network.named_children():
        if part is not tokenizer:
            draw_weights(part, seed, f"joint {name}", "fan-in")
    if config.lam == "frozen":
        tokenizer.requires_grad_(False)
    return network
