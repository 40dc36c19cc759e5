"""What determines a demo set."""

from dataclasses import dataclass

from lary_schema.base import ContractError

VERSION = 1
"""Of the generator: bump it when a pixel, a row or an action changes."""


@dataclass(frozen=True)
class Settings:
    """What determines a demo set, besides its key."""

    seed: int = 0
    distractor: int = 50
    """How strong the distractor is drawn, percent: 0 is absent, 100 opaque."""
    version: int = VERSION

    def __post_init__(self) -> None:
        if not 0 <= self.distractor <= 100:
            raise ContractError(f"distractor is {self.distractor}; it is a percentage, 0 to 100")
        if self.seed < 0:
            raise ContractError(f"seed is {self.seed}; it must not be negative")

    @property
    def name(self) -> str:
        """The media folder. Being part of every path in the CSV, it makes other pixels another CSV."""
        return f"v{self.version}-seed{self.seed}-distractor{self.distractor}"
