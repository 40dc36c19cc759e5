"""Which source files make up a model: found by reading them, not by running them."""

import ast
import importlib.util
from collections.abc import Iterator
from pathlib import Path

from lary_schema.base import ContractError, file_sha256, fingerprint
from lary_schema.files import visible_files

DECODE = "lary_worker.decode"
PREPROCESSING = "lary_worker.preprocessing"
"""The modules of the worker that make pixels: the one for every model, the other for those that use it."""
_FRAMES = (DECODE, "lary_worker.needed", "lary_worker.orientation")
"""What chooses frames and makes their pixels. `lary_worker.media` is not among it: that only refuses."""
_FIRST_FRAMES = "7ccb06a505e3ccb67201a5bcac934bd1f00368576173d5e53df03c5258a0b017"
_SAME_FRAMES = {
    "9e588f4589460c05b2014397862c6d2f2650e5c192737c2c6bd396547dc13e6b": _FIRST_FRAMES,
}
"""Sources (`_FRAMES`) whose frames of whole, upright clips are bit for bit those of older ones -> what the older ones
have in fingerprints, so that stores from then are found. Of other sources nothing is said, and stores are made anew."""
_SHARED = (
    *("lary_worker.rows", "lary_worker.encode", "lary_worker.checkpoints", "lary_schema.metadata"),
    "lary_schema.mounts",
)
"""What else makes values for every model: rows, paths and indices, the encoder's casts, the names of weights."""
_SAME_VALUES = {"59ea427cfe81f43ded900a6b9c41ddc70e15c6553d53fa13c3818b896d040026"}
"""Hashes (`shared_sha256`) of sources whose values are bit for bit those of the first release. When one of the files
changes and the values do not (tests/golden, kill tests), its hash is added; until then stores are made anew."""
PARTS = "lary_parts"
"""The package of network parts that several images share: what a model imports of it counts as its own."""
_NO_DATA = ("image.yaml", "py.typed")


def code_sha256(module: str) -> str:
    """Hash of a module's source and of all modules of its top package that it imports, transitively.

    Modules of `lary_parts` count likewise. The packages they lie in count too, since importing a module runs its
    package's `__init__`, and so do the worker's modules that make pixels, the package's data files, and the code that
    all models share where it is not known to give the values of before. Hashed are names and bytes, so a comment
    counts; `image.yaml` and other packages do not. What is left out and why: `docs/fingerprint.md`.
    """
    top = module.partition(".")[0]
    root = _package_folder(top)
    hashes = {DECODE: decode_sha256()} | _data_files(root)
    if (shared := shared_sha256()) not in _SAME_VALUES:
        hashes["shared"] = shared
    waiting = [module]
    while waiting:
        name = waiting.pop()
        path = _worker_file(name) if name == PREPROCESSING else _source(_root_of(name, root), name)
        if name in hashes or path is None:
            continue
        hashes[name] = file_sha256(path)
        if name != PREPROCESSING:
            waiting.extend(
                n for n in _imported(path, name) if n == PREPROCESSING or n.partition(".")[0] in (top, PARTS)
            )
            waiting.append(name.rpartition(".")[0] or name)
    if module not in hashes:
        raise ContractError(f"module {module} of a model has no source file in {root}")
    return fingerprint(hashes)


def shared_sha256() -> str:
    """Hash of the code between CSV and store that all models share, frames and their sizes apart."""
    return fingerprint({name: file_sha256(_file_of(name)) for name in _SHARED})


def _file_of(module: str) -> Path:
    spec = importlib.util.find_spec(module)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin)


def _data_files(root: Path) -> dict[str, str]:
    """A package's files that are neither source nor its card: tables that a model reads."""
    files = (path for path in visible_files(root) if "__pycache__" not in path.parts)
    named = {path.relative_to(root).as_posix(): path for path in files if path.suffix not in (".py", ".pyc")}
    return {f"data {name}": file_sha256(path) for name, path in named.items() if name not in _NO_DATA}


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


def _root_of(name: str, own: Path) -> Path:
    return _package_folder(PARTS) if name.partition(".")[0] == PARTS else own


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
