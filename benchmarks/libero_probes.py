"""What the probes read of models without weights on a generated set of LIBERO: motion phases, and actions.

    lary-orch data generate libero --suite libero_object --tasks 0-3 --episodes 15 --size 64 --out objects
    python benchmarks/libero_probes.py --set objects --save

Runs `frame-diff`, `random-vit` and `pixels` with the shuffled control on the set's cards of phases and pairs, in a
workspace of its own, and keeps every score with its interval and baseline. What the bench has to show: `frame-diff`
above chance in phases, the relative target decodable better than the mean action, the shuffled control at chance.
Actions are read under `clean`. Phases are read by a narrower network that is chosen alike
(`protocols/clean_narrow.yaml`) unless `--phases clean` is said: `clean` trains five networks of four layers of width
768 on 512 tokens a clip, hours a model on two cores (10^15 operations by counting; its first epoch did not end in five
minutes of processor time).
Killed, it goes on where `--workspace` is given again. Runs of more `--probe-seed`s in that workspace are kept too.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from common import arguments, report, run
from lary_schema.yaml_files import read_yaml

MODELS = "frame-diff,random-vit,pixels"
NARROW = Path(__file__).parent / "protocols" / "clean_narrow.yaml"
KEPT = (
    "protocol", "dataset", "model", "control", "metric", "probe", "value", "low", "high", "floor", "chance", "measures",
    "beats_floor", "rows", "train_rows", "groups", "seeds", "unit", "failed", "null_because",
)  # fmt: skip


def main() -> None:
    parser = arguments(str(__doc__))
    parser.add_argument("--set", type=Path, required=True, help="folder of a generated set")
    parser.add_argument("--phases", default=str(NARROW), help="protocol of phases")
    parser.add_argument("--pairs", default="clean", help="protocol of actions")
    parser.add_argument("--models", default=MODELS)
    parser.add_argument("--env", default="own", help="own or current")
    parser.add_argument("--workspace", type=Path, help="[a temporary one]")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        workspace = options.workspace or Path(folder)
        scores = [score for kind in ("phases", "pairs") for score in _scores(options, kind, workspace)]
    settings = json.loads((options.set / "generate.json").read_text(encoding="utf-8"))
    figures = {
        "set": settings, "success": read_yaml(_card(options.set, "pairs"))["source"],
        "scores": [{name: score[name] for name in KEPT} for score in scores],
    }  # fmt: skip
    report("libero_probes", figures, options.save)


def _card(folder: Path, kind: str) -> Path:
    found = sorted(folder.glob(f"*_{kind}.yaml"))
    if not found:
        sys.exit(f"{folder}: no card of {kind}; `lary-orch data generate libero --out {folder}` makes it")
    return found[0]


def _scores(options: Any, kind: str, workspace: Path) -> list[dict[str, Any]]:
    card = _card(options.set, kind)
    where = ["--workspace", str(workspace), "--protocol", getattr(options, kind)]
    _lary("run", "-m", options.models, "-d", card.stem, *where, "--catalog", str(options.set), "--env", options.env)
    scores: list[dict[str, Any]] = json.loads(_lary("results", "--workspace", str(workspace), "--json"))
    return [score for score in scores if score["dataset"] == card.stem]


def _lary(*arguments: str) -> str:
    """What a command of the bench prints; it says on stderr what it does."""
    done = run([sys.executable, "-m", "lary_orch", *arguments], stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(done.returncode)
    return str(done.stdout)


if __name__ == "__main__":
    main()
