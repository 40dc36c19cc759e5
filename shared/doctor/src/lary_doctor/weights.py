"""Are the weights of the chosen models here, and whole as far as a quick look shows?"""

from lary_orch.weights.files import Weight, chosen_cards, list_weights, problems
from lary_schema import commands

from lary_doctor.check import Context, Finding, worst

NAME = "weights"


def run(context: Context) -> Finding:
    families = [key for key in context.models if context.catalog.model_card(key).key != key]
    if families:
        remedy = f"`{commands.command('plan', '-m', families[0], '-d', 'DATASET')}` names what is missing"
        return Finding("skip", f"the files of {', '.join(families)} are known to the image alone", remedy)
    weights = list_weights(chosen_cards(context.catalog, context.models), context.workspace.weights)
    if not context.models:
        here = sum(weight.found for weight in weights)
        listing = commands.command("weights", "ls")
        return Finding("ok", f"{here} of {len(weights)} weights are here; `{listing}` lists them")
    return worst([_look(weight) for weight in weights]) if weights else Finding("ok", "the chosen models need none")


def _look(weight: Weight) -> Finding:
    if not weight.found and not weight.needed:
        return Finding("ok", f"{weight.path.name} is optional and not here")
    if not weight.found:
        return Finding("fail", f"{weight.path} is missing", weight.how)
    broken = "; ".join(problems(weight))
    if broken:
        return Finding("fail", f"{weight.path}: {broken}", f"remove it; then {weight.how}")
    return Finding("ok", f"{weight.path.name} is here")
