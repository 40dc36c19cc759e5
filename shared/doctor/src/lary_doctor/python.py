"""Is this Python new enough, and are our packages of one version?"""

import platform
import sys
from importlib.metadata import PackageNotFoundError, version

import lary_orch

from lary_doctor.check import Context, Finding

NAME = "python"
OLDEST = (3, 11)
PACKAGES = ("lary-orch", "lary-schema")


def run(context: Context) -> Finding:  # noqa: ARG001 - one interface for all checks
    if sys.version_info < OLDEST:
        return Finding("fail", f"Python {platform.python_version()}", "install Python 3.11 or newer")
    found = {name: _version(name) for name in PACKAGES}
    versions = ", ".join(f"{name} {installed or 'not installed'}" for name, installed in found.items())
    message = f"Python {platform.python_version()} on {platform.machine()}; {versions}"
    if set(found.values()) != {lary_orch.__version__}:
        remedy = "install the checkout's packages again: pip install -e shared/schema -e orchestrator"
        return Finding("fail", f"{message}, {lary_orch.__version__} expected", remedy)
    return Finding("ok", message)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
