"""Which source files make up a model: found by reading them, not by running them."""

import ast
import importlib.util
from collections.abc import Iterator
from pathlib import Path

from lary_schema.base import ContractError, file_sha256, fingerprint

DECODE = "lary_worker.decode"
PREPROCESSING = "lary_worker.preprocessing"
"""The modules of the worker that make pixels: the one for every model, the other for those that use it."""
_FRAMES = (DECODE, "lary_worker.orientation")
"""What chooses frames and makes their pixels. `lary_worker.media` is not among it: that only refuses."""
_SAME_FRAMES = {
    "bf02089f779e4f9b0f46b0f47cdaa122d8d9d9c4d718ffc50726af9eaa84764b": (
        "7ccb06a505e3ccb67201a5bcac934bd1f00368576173d5e53df03c5258a0b017"
    ),
}
"""Sources (`_FRAMES`) whose frames of whole, upright clips are bit for bit those of older ones -> what the older ones
have in fingerprints, so that stores from then are found. Of other sources nothing is said, and stores are made anew."""


def code_sha256(module: str) -> str:
    """Hash of a module's source and of all modules of its top package that it imports, transitively.

    The packages they lie in count too, since importing a module runs its package's `__init__`, and so
    do the worker's modules that make pixels. Hashed are names and bytes, so a comment counts;
    `image.yaml` and other packages do not.
    """
    top = module.partition(".")[0]
    root = _package_folder(top)
    hashes = {DECODE: decode_sha256()}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        path = _worker_file(name) if name == PREPROCESSING else _source(root, name)
        if name in hashes or path is None:
            continue
        hashes[name] = file_sha256(path)
        if name != PREPROCESSING:
            waiting.extend(n for n in _imported(path, name) if n == PREPROCESSING or n.partition(".")[0] == top)
            waiting.append(name.rpartition(".")[0] or name)
    if module not in hashes:
        raise ContractError(f"module {module} of a model has no source file in {root}")
    return fingerprint(hashes)


def decode_sha256() -> str:
    """What stands for the worker's decoding in fingerprints."""
    found = fingerprint({name: file_sha256(_worker_file(name)) for name in _FRAMES})
    return _SAME_FRAMES.get(found, found)


def _worker_file(module: str) -> Path:
    return Path(__file__).with_name(f"{module.rpartition('.')[2]}.py")


def _package_folder(top: str) -> Path:
    spec = importlib.util.find_spec(top)
    if spec is None or not spec.submodule_search_locations:
        raise ContractError(f"{top}: no such package; a model's module must lie in a package with an image.yaml")
    return Path(next(iter(spec.submodule_search_locations)))


def _source(root: Path, name: str) -> Path | None:
    """The file of a module; None for what is no module (`from package import function`)."""
    base = root.joinpath(*name.split(".")[1:])
    candidates = (base / "__init__.py", base.with_suffix(".py")) if base != root else (root / "__init__.py",)
    return next((path for path in candidates if path.is_file()), None)


def _imported(path: Path, module: str) -> Iterator[str]:
    """Dotted names that a file may import, at any depth of its code."""
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_bytes(), str(path))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)
