"""Are the container images built, in this version and from these sources?"""

from lary_orch.catalog.cards import repository
from lary_orch.catalog.source import ImageSource
from lary_orch.runtimes.images import SOURCE_LABEL, Recipes, how_to_get, reference

from lary_doctor.check import Context, Finding, worst
from lary_doctor.engine_facts import Engine

NAME = "images"


def run(context: Context) -> Finding:
    if context.runtime in ("process", "slurm"):
        return Finding("skip", f"the {context.runtime} runtime needs none")
    engine = context.engine
    if isinstance(engine, str):
        return Finding("skip", "no engine is reachable")
    recipes = Recipes(repository())
    return worst([_look(engine, recipes, source, context) for source in _sources(context)])


def _sources(context: Context) -> list[ImageSource]:
    """The images of the chosen models and the probe; all images where no model is named."""
    if not context.models:
        return [source for _, source in context.catalog.images]
    return [*(context.catalog.image_for(key) for key in context.models), context.catalog.probe()]


def _look(engine: Engine, recipes: Recipes, source: ImageSource, context: Context) -> Finding:
    ref = reference(source.card)
    labels = engine.labels(ref)
    if labels is None:
        return Finding("fail" if context.runtime == "docker" else "warn", f"{ref} is not here", how_to_get(source))
    if source.folder is not None and labels.get(SOURCE_LABEL) != recipes.source(source):
        return Finding("warn", f"{ref} was built from other sources than today's", how_to_get(source))
    return Finding("ok", ref)
