"""Planning a dataset of 1.2 million rows: seconds and peak memory of the whole command, the first time and the second
time in each of several new workspaces. Needs 61 GiB free in the temporary folder: a plan that does not fit is refused.
"""

import resource
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

from common import Seconds, arguments, medians, report, run, spent

CARD = """
key: million
title: many clips
task: classification
columns: {input: video}
metadata: million_{split}.csv
labels: {column: action}
license: none
source: synthetic
"""


def write_csv(path: Path, rows: int) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.write("dataset,video_path,action,sample_indices\n")
        file.writelines(
            f"million,classification/part_{i % 1000}/clip_{i:08d}_with_a_usual_name.mp4,class {i % 123},"
            f'"{",".join(str(i % 7 + 11 * k) for k in range(9))}"\n'
            for i in range(rows)
        )


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--rows", type=int, default=1_200_000, help="of train; val has a tenth")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "cards").mkdir()
        (folder / "cards/million.yaml").write_text(CARD)
        write_csv(folder / "million_train.csv", options.rows)
        write_csv(folder / "million_val.csv", options.rows // 10)
        command = [str(Path(sys.executable).with_name("lary-orch")), "plan", "-m", "frame-diff", "-d", "million"]
        command += ["--catalog", f"{folder}/cards", "--data-dir", name, "--runtime", "process", "--env", "current"]
        seconds: dict[str, list[Seconds]] = {"first": [], "second": []}
        for number in range(options.rounds):
            place = [*command, "--workspace", f"{folder}/w{number}"]
            for taken in seconds.values():
                taken.append(spent(partial(run, place, check=True, stdout=subprocess.DEVNULL)))
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    figures = {"rows": options.rows, "rounds": options.rounds, "peak_mib": round(peak / 1024)}
    report("planning", figures | {name: medians(taken) for name, taken in seconds.items()}, options.save)


if __name__ == "__main__":
    main()
