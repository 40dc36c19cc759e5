"""UniVLA's latent action encoder: DINOv2 features, a spatio-temporal transformer, a codebook.

Architecture: UniVLA (2025), section 3.1, second stage; upstream file
`latent_action_model/genie/modules/lam.py`. The decoder, which predicts the second frame's features,
and the codebook of what the robot does not control are never built.

Shapes: B clips, T frames, P pairs of neighbours, S = 8 + 256 slots of a frame, D width, d code width.
"""

from pathlib import Path

import torch
from lary_worker.checkpoints import build, read_state, split_qkv
from torch import Tensor, nn
from torch.nn import functional
from transformers import Dinov2WithRegistersConfig, Dinov2WithRegistersModel

from lary_lapa.univla_size import UnivlaSize

QUERIES = 4
"""Learned slots per frame of each kind: controllable first, then the others."""
_REGISTERS = 4
_TABLE_SIDE = 518  # pixels that the backbone's position table was trained for

_RENAMES = (
    (r"^lam\.", ""),
    (r"^dino_encoder\.norm\.", "backbone.layernorm."),
    (r"^dino_encoder\.patch_embed\.proj\.", "backbone.embeddings.patch_embeddings.projection."),
    (r"^dino_encoder\.pos_embed$", "backbone.embeddings.position_embeddings"),
    (r"^dino_encoder\.(cls_token|mask_token|register_tokens)$", r"backbone.embeddings.\1"),
    (r"^dino_encoder\.blocks\.", "backbone.encoder.layer."),
    (r"(^backbone\..*)\.ls([12])\.gamma$", r"\1.layer_scale\2.lambda1"),
    (r"(^backbone\..*)\.attn\.proj\.", r"\1.attention.o_proj."),
    (r"(^backbone\..*)\.attn\.", r"\1.attention."),
    (r"^vq_action\.codebook\.", "codebook."),
    (r"\.to_out\.0\.", ".to_out."),
)
_SKIPPABLE = (
    r"(lam\.)?decoder\.",
    r"(lam\.)?(patch_up|action_up|action_up_uncontrol)\.",
    r"(lam\.)?(to_codebook_uncontrol|vq)\.",
)


class Attention(nn.Module):
    """Multi-head attention; only the output projection has a bias."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(dim, dim, bias=False)
        self.to_k = nn.Linear(dim, dim, bias=False)
        self.to_v = nn.Linear(dim, dim, bias=False)
        self.to_out = nn.Linear(dim, dim)

    def forward(self, x: Tensor, *, causal: bool = False) -> Tensor:
        """(batch, length, D) -> the same."""
        q, k, v = (
            project(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (batch, heads, length, D / heads)
            for project in (self.to_q, self.to_k, self.to_v)
        )
        y = _causal_attention(q, k, v) if causal else functional.scaled_dot_product_attention(q, k, v)
        out: Tensor = self.to_out(y.transpose(1, 2).flatten(2))
        return out


class Block(nn.Module):
    """Attention within a frame, causal attention along time, MLP: all pre-norm and residual."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2, self.norm3 = nn.LayerNorm(dim), nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.spatial_attn = Attention(dim, heads)
        self.temporal_attn = Attention(dim, heads)
        # Slot 2 was the dropout.
        self.ffn = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Identity(), nn.Linear(4 * dim, dim))

    def forward(self, x: Tensor) -> Tensor:
        """(batch, T, S, D) -> the same."""
        batch, slots = x.shape[0], x.shape[2]
        x = x + self.spatial_attn(self.norm1(x).flatten(0, 1)).unflatten(0, (batch, -1))
        along_time = self.norm2(x).transpose(1, 2).flatten(0, 1)  # (batch * S, T, D)
        x = x + self.temporal_attn(along_time, causal=True).unflatten(0, (batch, slots)).transpose(1, 2)
        out: Tensor = x + self.ffn(self.norm3(x))
        return out


class Encoder(nn.Module):
    """Slots of the frames of a pair -> the same slots, informed of each other."""

    def __init__(self, size: UnivlaSize) -> None:
        super().__init__()
        dim = size.lam.model_dim
        self.ffn = nn.Sequential(
            nn.LayerNorm(size.vit.embed_dim), nn.Linear(size.vit.embed_dim, dim), nn.LayerNorm(dim)
        )
        self.transformer_blocks = nn.ModuleList(Block(dim, size.lam.num_heads) for _ in range(size.lam.enc_blocks))

    def embed(self, slots: Tensor) -> Tensor:
        """(..., S, vit D) -> (..., S, D) with the position of each slot in its frame."""
        embedded: Tensor = self.ffn(slots)
        return embedded + _sinusoids(*embedded.shape[-2:]).to(embedded)

    def forward(self, x: Tensor) -> Tensor:
        """Embedded (batch, T, S, D) -> the same."""
        for block in self.transformer_blocks:
            x = block(x)
        return x


class UnivlaLam(nn.Module):
    """All that inference needs of the checkpoint."""

    def __init__(self, size: UnivlaSize) -> None:
        super().__init__()
        self.backbone = _backbone(size)
        self.action_latent_controllable = nn.Parameter(torch.randn(1, 1, QUERIES, size.vit.embed_dim))
        self.action_latent = nn.Parameter(torch.randn(1, 1, QUERIES, size.vit.embed_dim))
        self.encoder = Encoder(size)
        self.to_codebook = nn.Linear(size.lam.model_dim, size.lam.latent_dim)
        self.codebook = nn.Embedding(size.lam.num_latents, size.lam.latent_dim)

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """(B, T, 3, H, W), ImageNet-normalised -> code vectors (B, T - 1, 4, d) and codes (B, T - 1, 4)."""
        return self._quantise(self.latents(pixels))

    def latents(self, pixels: Tensor) -> Tensor:
        """(B, T, 3, H, W) -> (B, T - 1, 4, d) before quantisation; each frame passes the backbone once."""
        frames = self.encoder.embed(self._slots(pixels))  # (B, T, S, D)
        pairs = torch.stack((frames[:, :-1], frames[:, 1:]), dim=2)  # (B, P, 2, S, D)
        encoded = self.encoder(pairs.flatten(0, 1))
        second = encoded[:, 1, :QUERIES].unflatten(0, pairs.shape[:2])  # (B, P, 4, D)
        latents: Tensor = self.to_codebook(second)
        return latents

    def _slots(self, pixels: Tensor) -> Tensor:
        shape = pixels.shape[:2]
        features = self.backbone(pixel_values=pixels.flatten(0, 1)).last_hidden_state
        patches = features[:, 1 + _REGISTERS :].unflatten(0, shape)  # (B, T, 256, vit D)
        queries = (q.expand(*shape, -1, -1) for q in (self.action_latent_controllable, self.action_latent))
        return torch.cat((*queries, patches), dim=2)

    def _quantise(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """The nearest codebook rows and their numbers, compared in float32."""
        rows = self.codebook.weight.float()
        distances = (latents.float().unsqueeze(-2) - rows).square().sum(-1)  # (..., codes)
        indices = distances.argmin(-1)
        return rows[indices], indices


def load(path: Path | None, size: UnivlaSize, device: torch.device, dtype: torch.dtype) -> UnivlaLam:
    """The network with the weights of `lam-stage-2.ckpt` or its conversion to safetensors.

    None: random weights, from torch's generator. Raises WeightsError for a file of something else.
    """
    state = split_qkv(read_state(path, entry="state_dict"), ("q_proj", "k_proj", "v_proj")) if path else None
    return build(
        lambda: UnivlaLam(size), state, path, renames=_RENAMES, skippable=_SKIPPABLE, device=device, dtype=dtype
    )


def _backbone(size: UnivlaSize) -> nn.Module:
    backbone: nn.Module = Dinov2WithRegistersModel(
        Dinov2WithRegistersConfig(
            hidden_size=size.vit.embed_dim,
            num_hidden_layers=size.vit.depth,
            num_attention_heads=size.vit.num_heads,
            mlp_ratio=size.vit.mlp_ratio,
            image_size=_TABLE_SIDE,
            patch_size=size.lam.patch_size,
            num_register_tokens=_REGISTERS,
        )
    )
    return backbone


def _sinusoids(length: int, dim: int) -> Tensor:
    """(length, dim): sine and cosine of position * 10000**(-2 i / dim), interleaved."""
    angles = torch.arange(length)[:, None] * 10000.0 ** (-torch.arange(0, dim, 2) / dim)
    return torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(1)


def _causal_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """(batch, heads, T, D / heads) -> the same, each step attending to itself and the past.

    Spelled out because T is 2 while the batch is one sequence per slot: a fused CUDA kernel wins
    nothing at that length, and its grid holds 65535 sequences.
    """
    future = torch.ones(q.shape[-2], q.shape[-2], dtype=torch.bool, device=q.device).triu(1)
    logits = (q @ k.mT * q.shape[-1] ** -0.5).masked_fill(future, float("-inf"))
    attended: Tensor = logits.softmax(dim=-1) @ v
    return attended
