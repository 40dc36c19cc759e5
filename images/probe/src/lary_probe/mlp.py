"""The regression head: a residual MLP on the flattened tokens. Source: LARYBench's MLP-ResNet."""

from torch import Tensor, nn


class ResidualMlp(nn.Module):
    """Tokens (B, ...) of `inputs` values per row -> (B, outputs)."""

    def __init__(self, inputs: int, outputs: int, *, width: int, blocks: int) -> None:
        super().__init__()
        self.enter = nn.Sequential(nn.LayerNorm(inputs), nn.Linear(inputs, width), nn.ReLU())
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.ReLU()) for _ in range(blocks)
        )
        self.leave = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, outputs))

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.enter(tokens.flatten(1))
        for block in self.blocks:
            x = x + block(x)
        out: Tensor = self.leave(x)
        return out
