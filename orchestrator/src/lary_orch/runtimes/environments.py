"""Where an image's Python comes from outside containers.

`own` makes a virtual environment per image on first use; `current` takes the running interpreter,
into which the user has installed the images (conda, HPC modules, machines without a registry).
"""

import os
import platform
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lary_schema import commands
from lary_schema.atomic import publish_text
from lary_schema.base import ContractError, file_sha256, fingerprint
from lary_schema.gpus import find_gpus
from lary_schema.locks import exclusive
from lary_schema.package_sources import uv_env, with_pip_files

from lary_orch.catalog.source import ImageSource
from lary_orch.runtimes.base import Notify
from lary_orch.runtimes.jobs import Prepared

MARKER = "lary-environment.txt"
"""Written last into a finished environment: what it was made from."""
TORCH_BACKEND = "LARY_TORCH_BACKEND"
FROM_FIND_LINKS, FROM_INDEX = "find-links", "index"
"""Sources of torch that are none of uv's backends: a wheel at hand, and the index of all other packages."""
SOURCE_SUFFIXES = {".py", ".yaml", ".toml", ".json"}


@dataclass(frozen=True)
class Checkout:
    """The folders of this repository that every image's environment is made from."""

    root: Path

    @property
    def schema(self) -> Path:
        return self.root / "shared" / "schema"

    @property
    def worker(self) -> Path:
        return self.root / "shared" / "worker"

    @property
    def trainer(self) -> Path:
        return self.root / "shared" / "trainer"

    @property
    def parts(self) -> Path:
        return self.root / "shared" / "parts"

    @property
    def policy(self) -> Path:
        return self.root / "shared" / "policy"

    @property
    def demo(self) -> Path:
        return self.root / "shared" / "demo"

    @property
    def common(self) -> tuple[Path, ...]:
        """What the environments of model images share."""
        return self.schema, self.policy, self.worker, self.trainer, self.parts

    @property
    def constraints(self) -> Path:
        return self.root / "images" / "base" / "constraints.txt"


class OwnEnvironments:
    """`--env own`: one virtual environment per image below `folder`, made with uv."""

    inherited: tuple[str, ...] = ()

    def __init__(self, folder: Path, checkout: Checkout, environ: Mapping[str, str] = os.environ) -> None:
        self._folder = folder
        self._checkout = checkout
        self._environ = environ

    def prepare(self, image: ImageSource, notify: Notify) -> Prepared:
        recipe = make_recipe(image, self._checkout, torch_source(with_pip_files(self._environ)))
        self._make(recipe, notify)
        sources = [*self._checkout.common, recipe.image]
        return Prepared(image, recipe.name, None, fingerprint([recipe.name, source_state(sources)]))

    def tool(self, name: str, folder: Path, extra: str, notify: Notify) -> Path:
        """The interpreter of an environment with one of our packages and no torch."""
        recipe = tool_recipe(name, folder, extra, self._checkout)
        self._make(recipe, notify)
        return self._folder / recipe.name / "bin" / "python"

    def _make(self, recipe: "Recipe", notify: Notify) -> None:
        env = self._folder / recipe.name
        if not (env / MARKER).is_file():
            with _alone(self._folder / f"{recipe.name}.lock", notify):
                if not (env / MARKER).is_file():
                    _create(recipe, env, uv_env(self._environ), notify)

    def python(self, prepared: Prepared) -> Path:
        return self._folder / prepared.ref / "bin" / "python"

    def hint(self, prepared: Prepared) -> str:
        env = self._folder / prepared.ref
        return f"If the environment is broken, remove {env}; the next run makes it anew."


class CurrentEnvironment:
    """`--env current`: the interpreter that runs the orchestrator."""

    # How conda and HPC modules make their packages known.
    inherited = ("PYTHONPATH", "CONDA_PREFIX", "VIRTUAL_ENV")

    def __init__(self, checkout: Checkout) -> None:
        self._checkout = checkout

    def prepare(self, image: ImageSource, notify: Notify) -> Prepared:
        name = f"current-{platform.python_implementation().lower()}-{platform.python_version()}"
        sources = [*self._checkout.common, _folder_of(image)]
        installed = Path(sysconfig.get_path("purelib")).stat().st_mtime_ns
        return Prepared(image, name, None, fingerprint([sys.executable, installed, source_state(sources)]))

    def python(self, prepared: Prepared) -> Path:
        return Path(sys.executable)

    def hint(self, prepared: Prepared) -> str:
        packages = editable_arguments(_folder_of(prepared.source), prepared.source, self._checkout)
        pip = (sys.executable, "-m", "pip", "install", "-c", str(self._checkout.constraints))
        return (
            f"If the image's package is not installed in this interpreter: {commands.joined([*pip, *packages])}; or "
            "let --env own make an environment."
        )


@dataclass(frozen=True)
class Recipe:
    """All that goes into an environment. Its name holds a hash of it: another recipe, another folder."""

    name: str
    image: Path
    install: tuple[str, ...]
    """Arguments of `uv pip install` after `--python`."""
    torch: bool = True


def make_recipe(image: ImageSource, checkout: Checkout, torch: str) -> Recipe:
    """The environment of an image. `torch` is a backend of uv's `--torch-backend`, `find-links` or `index`."""
    folder = _folder_of(image)
    projects = [*checkout.common, folder]
    # An image may pin further libraries.
    pins = [file for file in (folder / "requirements.txt",) if file.is_file()]
    made_from = {
        "files": [file_sha256(p / "pyproject.toml") for p in projects]
        + [file_sha256(file) for file in (checkout.constraints, *pins)],
        "folders": [str(p) for p in projects],
        "python": [sys.implementation.name, platform.python_version(), platform.machine()],
        "torch": torch,
    }
    backend = [] if torch in (FROM_FIND_LINKS, FROM_INDEX) else ["--torch-backend", torch]
    constraints = [word for file in (checkout.constraints, *pins) for word in ("-c", str(file))]
    install = [*constraints, *backend, *editable_arguments(folder, image, checkout)]
    return Recipe(f"{image.card.name}-{fingerprint(made_from)[:12]}", folder, tuple(install))


def tool_recipe(name: str, folder: Path, extra: str, checkout: Checkout) -> Recipe:
    """The environment of one of our packages that is no image's, with one of its extras."""
    made_from = {
        "files": [file_sha256(p / "pyproject.toml") for p in (checkout.schema, folder)]
        + [file_sha256(checkout.constraints)],
        "folders": [str(checkout.schema), str(folder)],
        "python": [sys.implementation.name, platform.python_version(), platform.machine()],
        "extra": extra,
    }
    install = ("-c", str(checkout.constraints), "-e", str(checkout.schema), "-e", f"{folder}[{extra}]")
    return Recipe(f"{name}-{fingerprint(made_from)[:12]}", folder, install, torch=False)


def editable_arguments(folder: Path, image: ImageSource, checkout: Checkout) -> list[str]:
    """`-e` for the packages of an image: the schema, worker, trainer and its parts (not for probes), its own folder.

    A simulator wants libraries of its own: of ours it gets the little that it needs, and what it is, is an extra.
    """
    if image.card.kind == "simulator":
        ours = (checkout.schema, checkout.policy, checkout.demo)
        return [*(word for one in ours for word in ("-e", str(one))), "-e", f"{folder}[simulator]"]
    shared = () if image.card.kind == "probe" else checkout.common[1:]
    loops = [word for folder in shared for word in ("-e", str(folder))]
    return ["-e", f"{checkout.schema}[store]", *loops, "-e", str(folder)]


def _folder_of(image: ImageSource) -> Path:
    if image.folder is None:
        raise ContractError(f"image {image.card.name} is a container alone (ref: {image.card.ref}); use it by docker")
    if not (image.folder / "pyproject.toml").is_file():
        raise ContractError(f"{image.folder}: no pyproject.toml, so image {image.card.name} cannot be installed")
    return image.folder


def torch_source(environ: Mapping[str, str]) -> str:
    """Where torch comes from: LARY_TORCH_BACKEND, a local wheel of pip's find-links, or the hardware.

    A machine without a GPU gets the CPU build: the default wheel pulls gigabytes of CUDA libraries.
    """
    chosen = environ.get(TORCH_BACKEND)
    if chosen:
        return chosen
    if any(_has_torch(location) for location in environ.get("PIP_FIND_LINKS", "").split()):
        return FROM_FIND_LINKS
    return "auto" if find_gpus() else "cpu"


def _has_torch(location: str) -> bool:
    """Whether a find-links location has torch: looked up in a folder, assumed of a web page."""
    return location.startswith(("http:", "https:")) or any(Path(location.removeprefix("file://")).glob("torch-*.whl"))


def source_state(folders: Sequence[Path]) -> list[list[object]]:
    """Name, size and time of every source file: changes whenever `describe` could reply otherwise."""
    state: list[list[object]] = []
    for folder in folders:
        for path in sorted(_sources(folder)):
            stat = path.stat()
            state.append([path.relative_to(folder).as_posix(), stat.st_size, stat.st_mtime_ns])
    return state


def _sources(folder: Path) -> Iterator[Path]:
    yield folder / "pyproject.toml"
    for path in (folder / "src").rglob("*"):
        if path.suffix in SOURCE_SUFFIXES and path.is_file():
            yield path


@contextmanager
def _alone(lock: Path, notify: Notify) -> Iterator[None]:
    """Hold a lock file; whoever comes second waits until the first is done (or dead)."""
    with exclusive(lock, "", waiting=lambda: notify(f"waiting for another process that makes {lock.stem}")):
        yield


def _create(recipe: Recipe, env: Path, environ: Mapping[str, str], notify: Notify) -> None:
    """Make an environment; one without its marker is what a killed creation left, and is redone."""
    # A wheel of 20 MB, needed by nobody who has only `--env current`.
    from uv import find_uv_bin

    uv = find_uv_bin()
    if env.exists():
        shutil.rmtree(env)
    hint = "; the first one downloads torch" if recipe.torch else ""
    notify(f"making environment {recipe.name} (once{hint})")
    made = f"environment {env} cannot be made"
    _uv([uv, "venv", "--quiet", "--no-project", "--python", sys.executable, str(env)], environ, made)
    _uv([uv, "pip", "install", "--quiet", "--python", str(env / "bin" / "python"), *recipe.install], environ, made)
    publish_text(env / MARKER, "\n".join(recipe.install) + "\n")


def _uv(command: Sequence[str], environ: Mapping[str, str], failed: str) -> None:
    done = subprocess.run(command, env=environ, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        words = " ".join(word for word in command[1:3] if not word.startswith("-"))
        raise ContractError(
            f"{failed}: uv {words} ends with exit {done.returncode}\n{done.stderr.strip()[-4000:]}\n"
            "Packages come from where pip's settings say (pip config list). Without a reachable index, install them "
            f"yourself and use --env current. {TORCH_BACKEND} chooses the build of torch: cpu, cu126, ..., or "
            f"{FROM_INDEX} for the one that the index has."
        )
