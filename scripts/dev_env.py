"""Install every package of this repository, editable, and what tests and lint need, into this interpreter.

Takes torch and the registry's settings the way `lary-orch run --env own` does.
"""

import os
import subprocess
import sys

from lary_orch.catalog.cards import repository
from lary_orch.runtimes.environments import FROM_FIND_LINKS, Checkout, torch_source, uv_env
from uv import find_uv_bin


def main() -> int:
    checkout = Checkout(repository())
    images = sorted(path.parent for path in checkout.root.glob("images/*/pyproject.toml"))
    torch = torch_source(os.environ)
    command = [find_uv_bin(), "pip", "install", "--python", sys.executable]
    command += ["-c", str(checkout.constraints), "-r", str(checkout.root / "requirements-dev.txt")]
    command += [] if torch == FROM_FIND_LINKS else ["--torch-backend", torch]
    shared = [checkout.root / "shared" / name for name in ("results", "demo", "conformance", "slurm")]
    for folder in [f"{checkout.schema}[store]", checkout.worker, *images, *shared, checkout.root / "orchestrator"]:
        command += ["-e", str(folder)]
    return subprocess.run(command, env=uv_env(os.environ), check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
