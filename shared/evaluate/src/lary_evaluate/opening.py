"""The runtime of an evaluation, and its plan."""

from dataclasses import replace
from typing import Literal, cast

from lary_orch.catalog.cards import Catalog
from lary_orch.runtimes.base import LocalRuntime, Notify
from lary_orch.runtimes.choose import local_names, open_runtime
from lary_orch.runtimes.devices import Slot
from lary_orch.runtimes.plugins import Wanted
from lary_orch.workspace import Workspace
from lary_schema.base import ContractError

from lary_evaluate.planning import Plan, Planner, needed_images
from lary_evaluate.request import Request


def opened(
    request: Request, catalog: Catalog, workspace: Workspace, wanted: Wanted, notify: Notify
) -> tuple[LocalRuntime, list[Slot], Plan]:
    """Raises ContractError where the runtime does not start jobs one by one, or the request does not fit."""
    if wanted.runtime not in ("auto", *local_names()):
        raise ContractError(
            f"--runtime {wanted.runtime} starts no pairs of jobs that share a socket; use {' or '.join(local_names())}"
        )
    images = needed_images(catalog, request.policies, request.benchmark)
    found, slots = open_runtime(wanted, workspace, images, notify)
    runtime = cast(LocalRuntime, found)
    for line in runtime.sweep():
        notify(line)
    device: Literal["cpu", "cuda"] = "cuda" if slots[0].device.kind == "cuda" else "cpu"
    planner = Planner(replace(request, device=device, threads=slots[0].cpus), workspace, catalog, runtime, notify)
    plan = planner.plan()
    if planner.rendering.name is not None:
        notify(f"{request.benchmark}: pictures are drawn by {planner.rendering}")
    return runtime, slots, plan
