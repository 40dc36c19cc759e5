"""The encoder and codebook of villa-X's latent action model.

A spatio-temporal transformer over windows of frames, a block of learned queries that reads one
latent action per pair of neighbouring frames, and a codebook. Architecture: villa-X (2025), appendix;
microsoft/villa-x, `lam/`. Module names are those of the checkpoint. Shapes: B clips, T frames of a
window, P patches of a frame, D width, H heads, N latents per transition, d their width.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from lary_villa_x.config import Config


class RMSNorm(nn.Module):
    """x / rms(x) * g, the root mean square bounded from below."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.g = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        rms = x.norm(dim=-1, keepdim=True) * x.shape[-1] ** -0.5
        normed: Tensor = x / rms.clamp(min=1e-8) * self.g
        return normed


class SelfAttention(nn.Module):
    """Multi-head attention whose queries and keys are layer-normed per head."""

    def __init__(self, dim: int, heads: int, *, qk_norm: bool) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.q_norm = nn.LayerNorm(dim // heads) if qk_norm else nn.Identity()
        self.k_norm = nn.LayerNorm(dim // heads) if qk_norm else nn.Identity()
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, *, causal: bool = False) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # (batch, H, length, D / H)
        q, k = self.q_norm(q), self.k_norm(k)
        y = _causal_attention(q, k, v) if causal else functional.scaled_dot_product_attention(q, k, v)
        out: Tensor = self.proj(y.transpose(1, 2).flatten(2))
        return out


class Mlp(nn.Module):
    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc2(functional.gelu(self.fc1(x), approximate="tanh"))
        return out


class SpaceTimeBlock(nn.Module):
    """Attention within a frame, causal attention along time, MLP.

    Shift, scale and gate of both branches are learned constants. The temporal branch takes the
    residual stream as it is, without a norm, and shares the gate of the spatial one: the weights
    were trained so.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        dim, heads, qk_norm = config.encoder_embed_dim, config.encoder_n_heads, config.st_use_qk_norm
        self.scale_shift_table = nn.Parameter(torch.randn(6, dim) * dim**-0.5)
        self.attn = SelfAttention(dim, heads, qk_norm=qk_norm)
        self.attn_temp = SelfAttention(dim, heads, qk_norm=qk_norm)
        self.mlp = Mlp(dim, int(dim * config.mlp_ratio))

    def forward(self, x: Tensor, pe_temporal: Tensor | None) -> Tensor:
        """(B, T, P, D) -> the same; `pe_temporal` (T, D) is added in the temporal branch alone."""
        batch = x.shape[0]
        shift, scale, gate, shift_mlp, scale_mlp, gate_mlp = self.scale_shift_table

        y = _norm(x) * (1 + scale) + shift
        x = x + gate * self.attn(y.flatten(0, 1)).unflatten(0, (batch, -1))

        along_time = x.transpose(1, 2).flatten(0, 1)  # (B * P, T, D)
        if pe_temporal is not None:
            along_time = along_time + pe_temporal
        x = x + gate * self.attn_temp(along_time, causal=True).unflatten(0, (batch, -1)).transpose(1, 2)

        out: Tensor = x + gate_mlp * self.mlp(_norm(x) * (1 + scale_mlp) + shift_mlp)
        return out


class CrossAttention(nn.Module):
    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q = nn.Linear(dim, dim)
        self.kv = nn.Linear(dim, 2 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, queries: Tensor, x: Tensor) -> Tensor:
        q = self.q(queries).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        k, v = self.kv(x).unflatten(-1, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        out: Tensor = self.proj(functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return out


class SwishGLU(nn.Module):
    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.project = nn.Linear(dim, 2 * hidden)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.project(x).chunk(2, dim=-1)
        out: Tensor = value * functional.silu(gate)
        return out


class MapBlock(nn.Module):
    """N learned queries attend to the patches of a transition; post-norm."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        dim = config.encoder_embed_dim
        self.latents = nn.Parameter(torch.randn(config.num_learned_tokens, dim))
        self.pre_projection = nn.Linear(dim, dim)
        self.attn_norm = RMSNorm(dim)
        self.attn = CrossAttention(dim, config.map_heads)
        self.mlp_norm = RMSNorm(dim)
        self.mlp = nn.Sequential(SwishGLU(dim, 4 * dim), nn.Linear(4 * dim, dim))
        self.final_proj = nn.Sequential(nn.Linear(dim, config.action_latent_dim))

    def forward(self, x: Tensor) -> Tensor:
        """(batch, P, D) -> (batch, N, d)."""
        latents = self.latents.expand(len(x), -1, -1)
        latents = self.attn_norm(latents + self.attn(latents, self.pre_projection(x)))
        latents = self.mlp_norm(latents + self.mlp(latents))
        out: Tensor = self.final_proj(latents)
        return out


class PatchEmbed(nn.Module):
    def __init__(self, config: Config) -> None:
        super().__init__()
        patch = config.patch_size
        self.proj = nn.Conv2d(config.in_channels, config.encoder_embed_dim, kernel_size=patch, stride=patch)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.proj(x).flatten(2).transpose(1, 2)
        return out


class Encoder(nn.Module):
    """Frames -> continuous latents of every transition."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        dim = config.encoder_embed_dim
        self.d_t = config.d_t
        # Sine-cosine tables that the checkpoint carries.
        self.pe_spatial = nn.Parameter(torch.zeros(1, config.patches, dim))
        self.pe_temporal = nn.Parameter(torch.zeros(1, config.d_t, dim))
        self.embed = PatchEmbed(config)
        self.layers = nn.ModuleList(SpaceTimeBlock(config) for _ in range(config.encoder_depth))
        self.norm = RMSNorm(dim)
        self.map_block = MapBlock(config)

    def forward(self, pixels: Tensor) -> Tensor:
        """(B, T, 3, H, W) normalised -> (B, T - 1, N, d).

        A clip longer than d_t is seen through a window that moves by one frame: all transitions of
        the first window count, and the last one of each further window.
        """
        batch = len(pixels)
        patches = self.embed(pixels.flatten(0, 1)) + self.pe_spatial
        patches = patches.unflatten(0, (batch, -1))  # (B, T, P, D)
        windows = patches.unfold(1, min(self.d_t, patches.shape[1]), 1)  # (B, W, P, D, d_t)
        windows = windows.movedim(-1, 2)  # (B, W, d_t, P, D)
        latents = self._transitions(windows.flatten(0, 1))
        latents = latents.reshape(batch, -1, *latents.shape[1:])  # (B, W, d_t - 1, N, d)
        return torch.cat([latents[:, 0], latents[:, 1:, -1]], dim=1)

    def _transitions(self, x: Tensor) -> Tensor:
        """Embedded windows (batch, T, P, D) -> (batch, T - 1, N, d)."""
        for i, layer in enumerate(self.layers):
            x = layer(x, self.pe_temporal[0, : x.shape[1]] if i == 0 else None)
        x = self.norm(x)
        between = (x[:, :-1] + x[:, 1:]) / 2
        out: Tensor = self.map_block(between.flatten(0, 1)).unflatten(0, between.shape[:2])
        return out


class Codebook(nn.Module):
    def __init__(self, config: Config) -> None:
        super().__init__()
        self.embedding = nn.Embedding(config.n_codes, config.action_latent_dim)

    def forward(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """(..., d) -> the nearest rows (..., d) and their numbers (...,), compared in float32."""
        rows = self.embedding.weight.float()
        distances = (latents.float().unsqueeze(-2) - rows).square().sum(-1)
        indices = distances.argmin(-1)
        return rows[indices], indices


class VillaXLam(nn.Module):
    """Encoder and codebook: all that inference needs of the checkpoint."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.encoder = Encoder(config)
        self.vq = Codebook(config)

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """(B, T, 3, H, W), ImageNet-normalised -> codebook vectors (B, T - 1, N, d) and codes (B, T - 1, N)."""
        quantised: tuple[Tensor, Tensor] = self.vq(self.encoder(pixels))
        return quantised


def _causal_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """(batch, H, T, D / H) -> the same, each step attending to itself and the past.

    Spelled out because T is at most d_t while the batch is one sequence per patch: a fused CUDA kernel
    wins nothing at that length, and its grid holds 65535 sequences.
    """
    length = q.shape[-2]
    future = torch.ones(length, length, dtype=torch.bool, device=q.device).triu(1)
    logits = (q @ k.mT * q.shape[-1] ** -0.5).masked_fill(future, float("-inf"))
    attended: Tensor = logits.softmax(dim=-1) @ v
    return attended


def _norm(x: Tensor) -> Tensor:
    return functional.layer_norm(x, x.shape[-1:], eps=1e-6)
