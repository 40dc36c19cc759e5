"""By what do simulators draw their pictures, and is it on this machine?"""

import ctypes.util
import os

from lary_schema.base import ContractError
from lary_schema.cards import Renderer
from lary_schema.gpus import find_gpus

from lary_doctor.check import Context, Finding, worst

NAME = "renderer"
LIBRARIES = {"osmesa": ("OSMesa", "libosmesa6"), "egl": ("EGL", "libegl1")}
"""Renderer -> its library, and Debian's package with it."""


def run(context: Context) -> Finding:
    found: dict[Renderer, list[str]] = {}
    for _, source in context.catalog.images:
        for renderer in {card.renderer for card in source.card.benchmarks if card.renderer is not None}:
            found.setdefault(renderer, []).append(source.card.name)
    if not found:
        return Finding("skip", "no simulator whose pictures depend on the machine")
    return worst([_look(context, renderer, ", ".join(names)) for renderer, names in found.items()])


def _look(context: Context, renderer: Renderer, names: str) -> Finding:
    given = os.environ.get(renderer.variable)
    try:
        chosen = renderer.chosen(given, cuda=bool(find_gpus()))
    except ContractError as error:
        return Finding("warn", str(error), f"unset {renderer.variable}")
    why = f"{renderer.variable} is set" if given else f"{renderer.variable} chooses otherwise"
    message = f"{names}: pictures are drawn by {chosen} ({why})"
    library, package = LIBRARIES.get(chosen, (chosen, ""))
    if context.runtime == "docker" or not package:
        return Finding("ok", message)
    if ctypes.util.find_library(library) is None:
        # Without simulators nothing is amiss, and containers bring their own.
        remedy = f"install {package} (Debian), or use --runtime docker"
        return Finding("warn" if given else "skip", f"{message}; lib{library} is not on this machine", remedy)
    return Finding("ok", message)
