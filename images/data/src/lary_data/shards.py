"""One shard of a store in memory, filled row by row from latents in their files' own shapes."""

import numpy as np
from lary_schema.base import ContractError
from lary_schema.store.layout import Failure, Provenance, Status
from lary_schema.store.writer import MISSING_INDEX, LatentWriter

from lary_data.npz import Latent


class Shard:
    """Rows may be put by several threads; each touches its own."""

    def __init__(self, made: Provenance, number: int) -> None:
        layout = made.layout
        self.number = number
        self.rows = layout.shard_range(number)
        self.failures: list[Failure] = []
        count = len(self.rows)
        self._spec = made.values.spec
        self._tokens = np.full((count, *layout.tokens), np.nan, layout.dtype)
        self._indices = None if layout.indices is None else np.full((count, *layout.indices), MISSING_INDEX, np.int64)
        self._status = np.full(count, Status.OK, np.uint8)

    def put(self, row: int, latent: Latent, name: str) -> Failure | None:
        """Keep a row's latent, or say why not. Raises ContractError for another shape than the store's."""
        self._check_shape(latent, name)
        tokens = latent.tokens.reshape(self._spec.tokens)
        if not np.isfinite(tokens).all():
            return Failure(row=row, reason="non_finite", detail="the file holds NaN or infinity")
        stored = tokens
        if tokens.dtype != self._tokens.dtype:
            with np.errstate(over="ignore"):
                stored = tokens.astype(self._tokens.dtype)
        if stored is not tokens and not np.isfinite(stored).all():
            detail = f"magnitude {np.abs(tokens).max():g} does not fit {stored.dtype}; use --dtype float32"
            return Failure(row=row, reason="overflow", detail=detail)
        at = row - self.rows.start
        self._tokens[at] = stored
        if self._indices is not None and latent.indices is not None:
            self._indices[at] = latent.indices.reshape(self._indices.shape[1:])
        return None

    def note(self, failure: Failure | None) -> None:
        """Keep why a row has no latent."""
        if failure is not None:
            self.failures.append(failure)
            self._status[failure.row - self.rows.start] = Status.FAILED

    def write(self, store: LatentWriter) -> None:
        """Publish the shard."""
        store.write(
            self.number,
            self._tokens,
            self._indices,
            self._status,
            failures=self.failures,
            clamped=(),
            batch_size=1,
            device="cpu",
        )

    def _check_shape(self, latent: Latent, name: str) -> None:
        spec, codes = self._spec, None if latent.indices is None else (1, *latent.indices.shape)[-2:]
        expected = (spec.tokens if spec.time_axis else spec.tokens[1:], spec.indices)
        if (latent.tokens.shape, codes) != expected:
            raise ContractError(
                f"{name}: tokens {latent.tokens.shape} and indices {codes}; the first file has {expected[0]} and "
                f"{expected[1]}. One store holds latents of one model in one shape"
            )
