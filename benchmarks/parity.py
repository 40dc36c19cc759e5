"""Every case of the golden vectors, in every variant that it has: by how much we differ from upstream.

The tests of `tests/parity` say whether that is within the manifest's tolerance; this writes the figures down, and
with --bf16 those of bfloat16 against our own float32. Full-size cases take minutes and gigabytes: --size small or
--key leave them out.
"""

import json
import shutil
import sys
import tempfile
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import arguments, parity, report

CPU = torch.device("cpu")


def figures(bench: Any, case: dict[str, Any], variant: str, noisy: bool) -> dict[str, Any]:
    """The largest differences of one case in one variant, and whether all indices are equal."""
    model, frames = bench.model(case, variant), bench.golden.frames(case)
    found: dict[str, Any] = {"tolerance": bench.golden.tolerance(case)}
    got = bench.arrays(case, variant, bench.encode(model, frames))
    if variant == "lary-v1" and noisy:
        got["residual_norm"] = bench.noise_lengths(bench.model(case, "corrected"), model, frames)
    for name, array in got.items():
        shaped = array.reshape(case["arrays"][name]["shape"])
        worst = bench.golden.difference(case, name, shaped)
        found[name] = bool(worst == 0) if name == "indices" else worst
    found["passes"] = bench.golden.problems(case, got) == []
    return found


def half(bench: Any, case: dict[str, Any], variant: str) -> dict[str, float]:
    """bfloat16 against float32: root mean square difference of the tokens over theirs, share of equal indices."""
    frames, latents = bench.golden.frames(case), []
    for dtype in (torch.float32, torch.bfloat16):
        model = bench.unloaded(case, variant)
        model.load(bench.checkpoint(case["checkpoint"]), CPU, dtype, seed=0)
        latents.append(bench.encode(model, frames))
    full, short = (one.tokens.double() for one in latents)
    found = {"relative_rms": round(((short - full).square().mean() / full.square().mean()).sqrt().item(), 5)}
    if latents[0].indices is not None:
        found["equal_indices"] = round((latents[0].indices == latents[1].indices).double().mean().item(), 4)
    return found


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--size", choices=["small", "full"], help="[both]")
    parser.add_argument("--key", action="append", help="of a model; repeatable [all]")
    parser.add_argument("--variant", action="append", help="repeatable [all]")
    parser.add_argument("--bf16", action="store_true", help="measure bfloat16 too, of small cases")
    options = parser.parse_args()
    tests = parity()
    golden = tests.Golden(tests._folder())
    chosen = [
        case
        for case in golden.cases
        if options.size in (None, case["size"]) and (not options.key or case["key"] in options.key)
    ]
    cases: dict[str, Any] = {}
    for checkpoint, group in groupby(chosen, lambda case: case["checkpoint"]):
        root = Path(tempfile.mkdtemp(prefix="lary-parity-"))
        paths = golden.write(checkpoint, root)
        bench = tests.Bench(golden, {checkpoint: paths}.__getitem__)
        for case in group:
            for variant in tests.variants_of(case):
                if options.variant and variant not in options.variant:
                    continue
                found = figures(bench, case, variant, tests.draws_noise(case))
                if options.bf16 and case["size"] == "small":
                    found["bf16"] = half(bench, case, variant)
                name = f"{case['size']} {case['key']} {case['mode']} {variant}"
                cases[name] = found
                print(name, json.dumps(found), file=sys.stderr, flush=True)
        shutil.rmtree(root)
    report(
        "parity", {"device": "cpu", "torch": torch.__version__, "numpy": np.__version__, "cases": cases}, options.save
    )
    sys.exit(not all(found["passes"] for found in cases.values()))


if __name__ == "__main__":
    main()
