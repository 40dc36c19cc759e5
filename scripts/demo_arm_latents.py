"""demo_arm_long with latent labels, which the study strategies-demo trains on: a few core-minutes.

    make demo_arm_latents
    python scripts/demo_arm_latents.py --folder latents_set --env current

Trains univla-lam-demo in two stages, lets it give every pair its codes, writes them into episodes (docs/annotate.md),
and a dataset card. Every command goes on where it was stopped. The last line is the command of the study.
"""

import argparse
import json
import shlex
import subprocess
import sys
from pathlib import Path

import yaml

KEY, SOURCE = "demo_arm_latents", "demo_arm_long"
CARD = Path(__file__).parents[1] / f"orchestrator/src/lary_orch/catalog/datasets/{SOURCE}.yaml"
DT, CODES = 4, 16
"""Of the pairs of demo_arm_long, and of the recipes."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path(KEY), help="of the card [demo_arm_latents]")
    parser.add_argument("--workspace", type=Path, default=Path("workspace"), help="of trainings and labels [workspace]")
    parser.add_argument("--env", default="own", help="of the process runtime: own or current [own]")
    parser.add_argument("--set", action="append", default=[], help="another value of both recipes; repeatable")
    given = parser.parse_args()
    work, labels = given.workspace, given.workspace / "generated" / KEY
    common = ["--workspace", str(work), "--runtime", "process", "--env", given.env]
    values = [word for value in given.set for word in ("--set", value)]
    one = _lary("train", "-r", "univla-lam-demo-one", "-d", SOURCE, *values, *common)
    two = _lary("train", "-r", "univla-lam-demo-two", "-d", SOURCE, "--start", one, *values, *common)
    _lary("run", "-m", two, "-d", SOURCE, "--variant", "codebook", "--protocol", "study", *common)
    where = ["--workspace", str(work), "--env", given.env]
    facts = ["--variant", "codebook", "--dt", str(DT), "--codes", str(CODES), "--into", "npz", "--to", str(labels)]
    _lary("data", *where, "annotate", "-d", SOURCE, "-m", two, *facts)
    card = _write_card(given.folder, json.loads((labels / "latents.json").read_text(encoding="utf-8")))
    data = ["--data-dir", str(work / "generated"), "--workspace", str(work)]
    print(f"{card}: now\n  lary-orch study strategies-demo {shlex.join(['--catalog', str(given.folder), *data])}")


def _lary(*arguments: str) -> str:
    """Run a command of the bench; the last line that it prints."""
    command = [sys.executable, "-m", "lary_orch", *arguments]
    done = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(done.returncode)  # it has said why
    return done.stdout.rstrip().rpartition("\n")[2]


def _write_card(folder: Path, labels: dict[str, object]) -> Path:
    card = yaml.safe_load(CARD.read_text(encoding="utf-8"))
    del card["generator"]
    card["key"], card["title"] = KEY, f"{card['title']}, with latent labels"
    known = {name: labels[name] for name in ("dt", "tokens", "width", "codes", "model")}
    card["latents"] = {"folder": f"{KEY}/{{split}}", "steps": card["actions"]["stride"], **known}
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{KEY}.yaml"
    path.write_text(yaml.safe_dump(card, sort_keys=False), encoding="utf-8")
    return path


if __name__ == "__main__":
    main()
