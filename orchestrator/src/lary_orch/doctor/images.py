"""Are the container images built, in this version?"""

import lary_orch
from lary_orch.doctor.check import Context, Finding, Status
from lary_orch.runtimes.base import ImageSource

NAME = "images"


def run(context: Context) -> Finding:
    if context.runtime == "process":
        return Finding("skip", "the process runtime needs none")
    engine = context.engine
    if isinstance(engine, str):
        return Finding("skip", "no engine answers")
    wanted = {_reference(source): source.card.name for source in _sources(context)}
    missing = {ref: name for ref, name in wanted.items() if not engine.has_image(ref)}
    if missing:
        status: Status = "fail" if context.runtime == "docker" else "warn"
        remedy = f"lary-orch images build {' '.join(missing.values())}"
        return Finding(status, f"not built: {', '.join(missing)}", remedy)
    return Finding("ok", f"{len(wanted)} images of version {lary_orch.__version__}")


def _sources(context: Context) -> list[ImageSource]:
    """The images of the chosen models and the probe; all images where no model is named."""
    if not context.models:
        return [source for _, source in context.catalog.images]
    return [*(context.catalog.image_for(key) for key in context.models), context.catalog.probe()]


def _reference(source: ImageSource) -> str:
    return source.card.ref or f"lary/{source.card.name}:{lary_orch.__version__}"
