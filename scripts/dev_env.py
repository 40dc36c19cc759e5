"""The development environment: every package of this repository, editable, and the tools of tests and lint.

    python scripts/dev_env.py install    into this interpreter; versions and hashes are those of requirements-dev.lock
    python scripts/dev_env.py lock       make that file anew; its present versions stay where they still fit
    python scripts/dev_env.py check      exit 1 where a package has other dependencies than the file was made from

torch and its CUDA libraries are not in the file, since a build for CPUs and one for a GPU are two files of one
version: they come from where `lary-orch run --env own` takes them, at the version of images/base/constraints.txt.
"""

import hashlib
import importlib
import json
import os
import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LOCK = ROOT / "requirements-dev.lock"
TOOLS = ROOT / "requirements-dev.txt"
CONSTRAINTS = ROOT / "images/base/constraints.txt"
PROJECTS = ("shared/*/pyproject.toml", "images/*/pyproject.toml", "orchestrator/pyproject.toml")
TORCHS_OWN = re.compile(r"(torch|triton|nvidia-.*|cuda-.*)==")
FIRST = {"uv", "pydantic", "pydantic-core", "annotated-types", "typing-extensions", "typing-inspection", "pyyaml"}
HEADER = "# Made by `make lock` from dependencies with the hash "


def projects() -> list[Path]:
    return [path for pattern in PROJECTS for path in sorted(ROOT.glob(pattern))]


def editable(project: Path) -> str:
    extras = "[store]" if project.parent.name == "schema" else ""
    return f"{project.parent.relative_to(ROOT)}{extras}"


def dependencies() -> str:
    """Hash of all that the lock file is made from; which of our packages needs what is all the same."""
    wanted = {TOOLS.read_text(encoding="utf-8"), CONSTRAINTS.read_text(encoding="utf-8")}
    for path in projects():
        project = tomllib.loads(path.read_text(encoding="utf-8"))["project"]
        for requirements in (project["dependencies"], *project.get("optional-dependencies", {}).values()):
            wanted |= {requirement for requirement in requirements if not requirement.startswith("lary-")}
    return hashlib.sha256(json.dumps(sorted(wanted)).encode()).hexdigest()[:16]


def packages() -> list[str]:
    """The lock file's entries, each with its hashes."""
    return re.split(r"(?m)^(?=[^\s#])", LOCK.read_text(encoding="utf-8"))[1:]


def uv(*arguments: str) -> None:
    from lary_schema.package_sources import uv_env
    from uv import find_uv_bin

    subprocess.run([find_uv_bin(), "pip", *arguments], cwd=ROOT, env=uv_env(os.environ), check=True)


def bootstrap() -> None:
    """What this script itself needs, by pip; the rest is uv's, which takes a fifth of the time."""
    chosen = [package for package in packages() if package.partition("==")[0] in FIRST]
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write("".join(chosen))
        file.flush()
        pip = (sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
        subprocess.run([*pip, "--require-hashes", "--no-deps", "-r", file.name], check=True)
    sys.path[:0] = [str(ROOT / "orchestrator/src"), str(ROOT / "shared/schema/src")]
    importlib.invalidate_caches()


def install() -> None:
    bootstrap()
    from lary_orch.runtimes.environments import FROM_FIND_LINKS, FROM_INDEX, torch_source
    from lary_schema.package_sources import with_pip_files

    target = ("install", "--python", sys.executable)
    uv(*target, "--require-hashes", "--no-deps", "-r", str(LOCK))
    torch = torch_source(with_pip_files(os.environ))
    backend = [] if torch in (FROM_FIND_LINKS, FROM_INDEX) else ["--torch-backend", torch]
    ours = [word for path in projects() for word in ("-e", editable(path))]
    # Built by the hatchling of the file above, and not by whatever is newest.
    uv(*target, "--no-build-isolation", "-c", str(CONSTRAINTS), *backend, "torch", *ours)


def lock() -> None:
    names = [tomllib.loads(path.read_text(encoding="utf-8"))["project"]["name"] for path in projects()]
    left_out = [word for name in names for word in ("--no-emit-package", name)]
    wanted = ROOT / "requirements-dev.in"
    wanted.write_text("".join(f"-e {editable(path)}\n" for path in projects()), encoding="utf-8")
    try:
        inputs = (str(wanted), str(TOOLS), "-c", str(CONSTRAINTS), "-o", str(LOCK))
        form = ("--universal", "--python-version", "3.11", "--generate-hashes", "--no-header", "--no-annotate")
        uv("compile", "--quiet", *form, *left_out, *inputs)
    finally:
        wanted.unlink()
    kept = [package for package in packages() if not TORCHS_OWN.match(package)]
    LOCK.write_text(f"{HEADER}{dependencies()}\n{''.join(kept)}", encoding="utf-8")


def check() -> None:
    first = LOCK.read_text(encoding="utf-8").partition("\n")[0]
    if first != f"{HEADER}{dependencies()}":
        sys.exit("requirements-dev.lock was made from other dependencies; run `make lock` and commit it")


if __name__ == "__main__":
    {"install": install, "lock": lock, "check": check}[sys.argv[1]]()
