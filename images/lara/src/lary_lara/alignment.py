"""How alike the policy's hidden state and the tokenizer's embedding are: as a loss, and as it is measured."""

import torch
from lary_parts.measures import successors
from lary_trainer.chance import stream
from lary_trainer.trainee import Batch
from torch import Tensor
from torch.nn import functional

from lary_lara.joint_facts import LaraConfig

RELATIVE = ("centred", "contrastive")
"""Alignments that compare a row with the others of its batch."""


def alignment_loss(config: LaraConfig, policy: Tensor, latent: Tensor) -> Tensor:
    """(B, D) each, all rows of the batch -> scalar."""
    if config.stop_gradient == "lam":
        latent = latent.detach()
    if config.stop_gradient == "policy":
        policy = policy.detach()
    if config.alignment == "cosine":
        return 1 - functional.cosine_similarity(policy, latent, dim=-1).mean()
    policy, latent = centred(policy), centred(latent)
    if config.alignment == "centred":
        return 1 - functional.cosine_similarity(policy, latent, dim=-1).mean()
    alike = functional.normalize(policy, dim=-1) @ functional.normalize(latent, dim=-1).mT / config.temperature
    own = torch.arange(len(alike), device=alike.device)
    return (functional.cross_entropy(alike, own) + functional.cross_entropy(alike.mT, own)) / 2


def policy_rows(config: LaraConfig, batch: Batch, count: int, *, relative: bool) -> Tensor:
    """(count,) int64: for each embedding the row whose policy sample goes with it, by (seed, step).

    Permuted, a loss of single pairs never gets a row's own. One that is `relative` to the batch has to get it as often
    as any other: if it never did, "not your own" could be learnt from it, and what is measured would be below chance.
    """
    if config.pairing == "own":
        return torch.arange(count)
    order = stream(batch.seed, "pairing", batch.step).permutation(count)
    return torch.from_numpy(order if relative else successors(order))


def centred(vectors: Tensor) -> Tensor:
    """(B, D) less its mean over the rows."""
    return vectors - vectors.mean(0)


def alignment_measures(policy: Tensor, latent: Tensor) -> dict[str, float]:
    """(N, D) each. `raw_cosine` is high where both are near a constant; the others are not.

    `retrieval`: share of rows whose embedding is the nearest, by centred cosine, to the policy's state of that row;
    `retrieval_chance`: 1 / N.
    """
    one, other = (functional.normalize(centred(v), dim=-1) for v in (policy, latent))
    nearest = (one @ other.mT).argmax(1)
    return {
        "raw_cosine": functional.cosine_similarity(policy, latent, dim=-1).mean().item(),
        "centred_cosine": (one * other).sum(-1).mean().item(),
        "retrieval": (nearest == torch.arange(len(nearest), device=nearest.device)).float().mean().item(),
        "retrieval_chance": 1 / len(nearest),
    }
