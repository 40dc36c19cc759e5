"""How long `lary-orch --help` takes, compared with a bare Python that does nothing."""

import sys
from pathlib import Path

from common import arguments, measured, report, run


def main() -> None:
    options = arguments(__doc__ or "").parse_args()
    command = Path(sys.executable).with_name("lary-orch")
    ways = {
        "help": lambda: run([command, "--help"], check=True, capture_output=True),
        "python": lambda: run([sys.executable, "-c", "pass"], check=True),
    }
    measured(ways, 1)
    rounds = max(options.rounds, 9)
    report("start", {"rounds": rounds, "seconds": measured(ways, rounds)}, options.save)


if __name__ == "__main__":
    main()
