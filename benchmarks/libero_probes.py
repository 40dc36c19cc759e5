"""What the probes read of models without weights on a generated set of LIBERO: motion phases, and actions.

    lary-orch data generate libero --suite libero_object --tasks 0-3 --episodes 15 --size 64 --out objects
    python benchmarks/libero_probes.py --set objects --protocol clean --save

Runs `frame-diff`, `random-vit` and `pixels` with the shuffled control on the set's cards of phases and pairs, in a
workspace of its own, and keeps every score with its interval and baseline. What the bench has to show: `frame-diff`
above chance in phases, the relative target decodable better than the mean action, the shuffled control at chance.
Killed, it goes on where `--workspace` is given again.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from common import arguments, report
from lary_schema.yaml_files import read_yaml

MODELS = "frame-diff,random-vit,pixels"
KINDS = ("phases", "pairs")
KEPT = (
    "dataset", "model", "control", "metric", "probe", "value", "low", "high", "floor", "chance", "measures",
    "beats_floor", "rows", "train_rows", "groups", "unit", "failed", "null_because",
)  # fmt: skip


def main() -> None:
    parser = arguments(str(__doc__))
    parser.add_argument("--set", type=Path, required=True, help="folder of a generated set")
    parser.add_argument("--protocol", default="clean")
    parser.add_argument("--models", default=MODELS)
    parser.add_argument("--env", default="own", help="own or current")
    parser.add_argument("--workspace", type=Path, help="[a temporary one]")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        scores = _scores(options, options.workspace or Path(folder))
    settings = json.loads((options.set / "generate.json").read_text(encoding="utf-8"))
    figures = {
        "set": settings, "success": _source(options.set), "protocol": options.protocol,
        "scores": [{name: score[name] for name in KEPT} for score in scores],
    }  # fmt: skip
    report("libero_probes", figures, options.save)


def _cards(folder: Path) -> list[Path]:
    found = [path for kind in KINDS for path in sorted(folder.glob(f"*_{kind}.yaml"))]
    if not found:
        sys.exit(f"{folder}: no card of phases or pairs; `lary-orch data generate libero --out {folder}` makes them")
    return found


def _scores(options: Any, workspace: Path) -> list[dict[str, Any]]:
    data = [word for card in _cards(options.set) for word in ("-d", card.stem)]
    where = ["--workspace", str(workspace), "--protocol", options.protocol]
    _lary("run", "-m", options.models, *data, *where, "--catalog", str(options.set), "--env", options.env)
    scores: list[dict[str, Any]] = json.loads(_lary("results", *where, "--json"))
    return scores


def _source(folder: Path) -> str:
    """How often each task was done, as the card says it."""
    source: str = read_yaml(_cards(folder)[0])["source"]
    return source


def _lary(*arguments: str) -> str:
    """What a command of the bench prints; it says on stderr what it does."""
    done = subprocess.run(
        [sys.executable, "-m", "lary_orch", *arguments], check=False, stdout=subprocess.PIPE, text=True
    )
    if done.returncode:
        sys.exit(done.returncode)
    return done.stdout


if __name__ == "__main__":
    main()
