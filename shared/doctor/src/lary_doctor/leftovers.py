"""Is something lying about that nobody will need?"""

from lary_orch.run.cleaning import leftovers
from lary_schema import commands
from lary_terminal.tables import size_text

from lary_doctor.check import Context, Finding

NAME = "leftovers"


def run(context: Context) -> Finding:
    found = list(leftovers(context.workspace))
    if not found:
        return Finding("ok", "none")
    size = size_text(sum(target.size for target in found))
    return Finding("warn", f"{len(found)} leftovers of runs that died, {size}", commands.command("clean"))
