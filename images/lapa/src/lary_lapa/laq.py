"""LAQ: two frames' features -> a few codes of what changed between them.

After LAPA (Ye et al., 2025), whose transformer descends from phenaki and whose quantiser is NSVQ
(Vali and Backstrom, 2022). The decoder, which predicts the second frame, is never built.

Shapes: b pairs, t = 2 frames, h x w patches, d channels, n codes per pair, q channels per code.

Three oddities were trained in and stay: keys and values are not layer-normed, queries are
(`Attention`); the temporal stack's tokens pass the position convolution in the wrong order
(`Transformer`); code vectors are re-viewed across channels before the last projection (`Nsvq.read_out`).
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from lary_lapa.facts import CODE_CONVOLUTIONS, LaqConfig

SIMILARITY_SCALE = 8.0
"""Of the cosine similarities before the softmax."""

RENAMES = (
    (r"^spatial_rel_pos_bias\.net\.0\.0\.", "position_bias.mlp.0."),
    (r"^spatial_rel_pos_bias\.net\.1\.0\.", "position_bias.mlp.2."),
    (r"^spatial_rel_pos_bias\.net\.2\.", "position_bias.mlp.4."),
    (r"^enc_(spatial|temporal)_transformer\.norm_out\.", r"\1.norm."),
    (r"^enc_(spatial|temporal)_transformer\.", r"\1."),
    (r"\.(\d+)\.0\.dsconv\.", r".\1.position.conv."),
    (r"\.(\d+)\.1\.(norm|q_scale|k_scale|to_)", r".\1.attention.\2"),
    (r"\.(\d+)\.3\.([014])\.", r".\1.feed_forward.\2."),
    (r"\.gamma$", ".weight"),
    (r"\.beta$", ".bias"),
)
"""From the names in LAQ checkpoints to those of `Laq`."""

PATCH_RENAMES = (
    (r"^to_patch_emb_first_frame\.1\.", "layers.0."),
    (r"^to_patch_emb_first_frame\.2\.", "layers.1."),
    (r"^to_patch_emb_first_frame\.3\.", "layers.2."),
)
"""From the names in `lapa`'s checkpoint to those of `PatchEmbedding`."""

SKIPPABLE = (
    r"enc_\w+\.layers\.\d+\.1\.(null_kv|context_norm\.)",
    r"dec_spatial_transformer\.",
)
"""Tensors that no latent depends on: an empty one and an unused norm per layer, and the decoder."""


@dataclass(frozen=True)
class Codes:
    """What changed in each pair, before and after quantisation."""

    change: Tensor
    """(b, n, q): last frame minus first."""
    nearest: Tensor
    """(b, n, q): the codebook vector closest to it."""
    indices: Tensor
    """(b, n) int64: that vector's row."""


class PatchEmbedding(nn.Module):
    """Pixels of non-overlapping patches -> features (the frame encoder of `lapa`)."""

    def __init__(self, patch: int, dim: int) -> None:
        super().__init__()
        self.patch = patch
        pixels = 3 * patch * patch
        self.layers = nn.Sequential(nn.LayerNorm(pixels), nn.Linear(pixels, dim), nn.LayerNorm(dim))

    def forward(self, frames: Tensor) -> Tensor:
        """(b, 3, H, W) in [0, 1] -> (b, h, w, d)."""
        p = self.patch
        patches = frames.unfold(2, p, p).unfold(3, p, p)  # (b, 3, h, w, p, p)
        pixels = patches.permute(0, 2, 3, 1, 4, 5).flatten(3)  # channel, row, column
        embedded: Tensor = self.layers(pixels)
        return embedded


class PositionBias(nn.Module):
    """A learned function of the offset between two patches, added to attention logits per head."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(2, dim), nn.LeakyReLU(0.1), nn.Linear(dim, dim), nn.LeakyReLU(0.1), nn.Linear(dim, heads)
        )

    def forward(self, h: int, w: int) -> Tensor:
        """(heads, h*w, h*w). Offsets repeat: the network sees each of the (2h-1)(2w-1) once."""
        weight = next(self.mlp.parameters())
        dy, dx = (torch.arange(1 - n, n, device=weight.device) for n in (h, w))
        offsets = torch.stack(torch.meshgrid(dy, dx, indexing="ij"), dim=-1).float()
        logs = offsets.sign() * offsets.abs().add(1).log()
        table = self.mlp(logs.to(weight.dtype)).permute(2, 0, 1)  # (heads, 2h-1, 2w-1)
        rows, columns = (torch.arange(n, device=weight.device) for n in (h, w))
        y = (rows[:, None] - rows + h - 1)[:, None, :, None]  # query row, -, key row, -
        x = (columns[:, None] - columns + w - 1)[None, :, None, :]
        bias: Tensor = table[:, y, x]  # (heads, h, w, h, w)
        return bias.flatten(3, 4).flatten(1, 2)


class PositionConv(nn.Module):
    """Position from the neighbours: a depthwise 3x3x3 convolution, causal in time."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.conv = nn.Conv3d(dim, dim, 3, groups=dim)

    def forward(self, x: Tensor, shape: tuple[int, int, int, int]) -> Tensor:
        """Any x that can be re-viewed as (*shape, d), where shape is (b, t, h, w) -> the same shape as x."""
        video = x.reshape(*shape, -1).movedim(-1, 1)  # (b, d, t, h, w)
        mixed: Tensor = self.conv(functional.pad(video, (1, 1, 1, 1, 2, 0)))
        return mixed.movedim(1, -1).reshape(x.shape)


class Attention(nn.Module):
    """Cosine-similarity attention. Queries are layer-normed; keys and values are not, as trained."""

    def __init__(self, dim: int, heads: int, dim_head: int) -> None:
        super().__init__()
        self.heads = heads
        inner = heads * dim_head
        self.norm = nn.LayerNorm(dim)
        self.to_q = nn.Linear(dim, inner, bias=False)
        self.to_kv = nn.Linear(dim, 2 * inner, bias=False)
        self.to_out = nn.Linear(inner, dim, bias=False)
        self.q_scale = nn.Parameter(torch.ones(dim_head))
        self.k_scale = nn.Parameter(torch.ones(dim_head))

    def forward(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """(b, n, d), with bias (heads, n, n) -> (b, n, d)."""
        k, v = self.to_kv(x).chunk(2, dim=-1)
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (self.to_q(self.norm(x)), k, v))
        q = functional.normalize(q, dim=-1) * self.q_scale  # (b, heads, n, dim_head)
        k = functional.normalize(k, dim=-1) * self.k_scale
        if bias is None:
            # Sequences of two frames, b*h*w of them: more than the grid of a fused CUDA kernel holds.
            out = (q @ k.mT * SIMILARITY_SCALE).softmax(dim=-1) @ v
        else:
            out = functional.scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=SIMILARITY_SCALE)
        attended: Tensor = self.to_out(out.transpose(1, 2).flatten(2))
        return attended


class GatedGelu(nn.Module):
    """(..., 2i) -> (..., i): the first half times the GELU of the second."""

    def forward(self, x: Tensor) -> Tensor:
        value, gate = x.chunk(2, dim=-1)
        return value * functional.gelu(gate)


class Layer(nn.Module):
    """Position convolution, attention, feed-forward; each added to its input."""

    def __init__(self, config: LaqConfig) -> None:
        super().__init__()
        self.position = PositionConv(config.dim)
        self.attention = Attention(config.dim, config.heads, config.dim_head)
        self.feed_forward = nn.Sequential(
            nn.LayerNorm(config.dim),
            nn.Linear(config.dim, 2 * config.inner, bias=False),
            GatedGelu(),
            nn.Identity(),  # the checkpoint counts a dropout here
            nn.Linear(config.inner, config.dim, bias=False),
        )

    def forward(self, x: Tensor, shape: tuple[int, int, int, int], bias: Tensor | None) -> Tensor:
        x = x + self.position(x, shape)
        x = x + self.attention(x, bias)
        out: Tensor = x + self.feed_forward(x)
        return out


class Transformer(nn.Module):
    """A stack of layers and a last norm.

    `shape` is (b, t, h, w) whatever the order of the tokens. The temporal stack's are ordered (b, h, w, t),
    so its position convolutions mix tokens that are no neighbours. The weights were trained with that.
    """

    def __init__(self, config: LaqConfig, depth: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Layer(config) for _ in range(depth))
        self.norm = nn.LayerNorm(config.dim)

    def forward(self, x: Tensor, shape: tuple[int, int, int, int], bias: Tensor | None = None) -> Tensor:
        for layer in self.layers:
            x = layer(x, shape, bias)
        normed: Tensor = self.norm(x)
        return normed


def code_convolutions(code_seq_len: int, q: int) -> nn.Sequential:
    """The convolutions that leave n code positions of h x w patches, with ReLU between."""
    first, *rest = (nn.Conv2d(q, q, c.kernel, c.stride, c.padding) for c in CODE_CONVOLUTIONS[code_seq_len])
    return nn.Sequential(first, *(layer for conv in rest for layer in (nn.ReLU(), conv)))


class Nsvq(nn.Module):
    """Noise-substitution vector quantisation of the change from one frame to the next."""

    def __init__(self, config: LaqConfig) -> None:
        super().__init__()
        self.project_in = nn.Linear(config.dim, config.quant_dim)
        self.cnn_encoder = code_convolutions(config.code_seq_len, config.quant_dim)
        self.codebooks = nn.Parameter(torch.randn(config.codebook_size, config.quant_dim))
        self.project_out = nn.Linear(config.quant_dim, config.dim)

    def forward(self, frames: Tensor) -> Codes:
        """Encoded pairs (b, 2, h, w, d) -> their codes."""
        maps = self.project_in(frames).flatten(0, 1).movedim(-1, 1)  # (b*2, q, h, w)
        points = self.cnn_encoder(maps).flatten(2).mT.unflatten(0, (-1, 2))  # (b, 2, n, q)
        change = points[:, 1] - points[:, 0]
        # Differences, not the expanded square: close codes stay apart. cdist knows no bfloat16.
        distance = torch.cdist(
            change.float(), self.codebooks.float(), compute_mode="donot_use_mm_for_euclid_dist"
        )  # (b, n, codebook)
        indices = distance.argmin(dim=-1)
        return Codes(change, self.codebooks[indices], indices)

    def read_out(self, vectors: Tensor) -> Tensor:
        """Code vectors (b, n, q) -> tokens (b, n, d).

        The memory of (n, q) is taken for one of (q, n): trained so, in LAPA as well.
        """
        b, n, q = vectors.shape
        tokens: Tensor = self.project_out(vectors.reshape(b, q, n).mT)
        return tokens


class Laq(nn.Module):
    """Spatial attention within each frame, temporal attention across the two, then the codes."""

    def __init__(self, config: LaqConfig) -> None:
        super().__init__()
        self.position_bias = PositionBias(config.dim, config.heads)
        self.spatial = Transformer(config, config.spatial_depth)
        self.temporal = Transformer(config, config.temporal_depth)
        self.vq = Nsvq(config)

    def forward(self, features: Tensor) -> Codes:
        """Features of pairs (b, 2, h, w, d) -> codes."""
        b, t, h, w, d = features.shape
        shape = (b, t, h, w)
        bias = self.position_bias(h, w)
        x = self.spatial(features.reshape(b * t, h * w, d), shape, bias)
        x = x.reshape(b, t, h * w, d).transpose(1, 2).reshape(b * h * w, t, d)
        x = self.temporal(x, shape)
        x = x.reshape(b, h * w, t, d).transpose(1, 2).reshape(b, t, h, w, d)
        codes: Codes = self.vq(x)
        return codes


def with_noise(codes: Codes, noise: Tensor) -> Tensor:
    """(b, n, q): the change plus noise as long as its distance to the code, as NSVQ trains.

    `noise` (b, n, q) gives the directions (standard normal).
    """
    distance = (codes.change - codes.nearest).norm(dim=-1, keepdim=True)
    noisy: Tensor = codes.change + (distance / noise.norm(dim=-1, keepdim=True) + 1e-12) * noise
    return noisy
