"""Does this image do what the job was planned for? A store must hold what its fingerprint says."""

import importlib.util
from typing import Any

from lary_schema.base import ContractError
from lary_schema.cards import ModelCard
from lary_schema.jobs import ExtractJob, minor_versions

from lary_worker import registry


def check_agreement(job: ExtractJob) -> None:
    """Compare the job with the image and with itself. Raises ContractError naming all that differs."""
    if job.values.decoder == "decord" and importlib.util.find_spec("decord") is None:
        raise ContractError(f"job {job.id} wants decord, which this image does not have; install it, or plan with pyav")
    card = registry.find_card(job.values.model)
    differences = _with_image(job, card) | _within(job)
    wrong = [f"{name}: planned {planned}, here {here}" for name, (planned, here) in differences.items()]
    if wrong:
        raise ContractError(f"job {job.id} does not fit, plan it again:\n" + "\n".join(f"  {w}" for w in wrong))


def _with_image(job: ExtractJob, card: ModelCard) -> dict[str, tuple[Any, Any]]:
    here = minor_versions(registry.libraries())
    values, spec = job.values, card.spec(job.values.mode, job.values.variant)
    return _unequal(
        {
            "spec": (values.spec, spec),
            "store tokens": (job.store.tokens, spec.tokens),
            "store indices": (job.store.indices, spec.indices),
            "preprocessing": (values.preprocessing, card.preprocessing_of(values.variant)),
            "revision": (values.revision, card.revision),
            "libraries": (values.libraries or here, here),
            "code_sha256": (values.code_sha256, registry.code_of(values.model)),
        }
    )


def _within(job: ExtractJob) -> dict[str, tuple[Any, Any]]:
    """Whether the parts of the job that are read are those that the fingerprint was made of."""
    values, source = job.values, job.source
    fed = source.columns.input if values.actions is None else "actions"
    return _unequal(
        {
            "metadata sha256": (values.metadata_sha256, source.metadata.sha256),
            "columns": (values.columns, source.columns),
            "media": (values.media, source.media),
            "frames": (values.frames, source.frames),
            "input of the columns": (values.mode, fed),
            "dtype": (values.dtype, job.store.dtype),
            "weights": (values.weights, {file.name: file.sha256 for file in job.weights}),
        }
    )


def _unequal(pairs: dict[str, tuple[Any, Any]]) -> dict[str, tuple[Any, Any]]:
    return {name: (planned, here) for name, (planned, here) in pairs.items() if planned != here}
