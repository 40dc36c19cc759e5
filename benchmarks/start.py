"""How long `lary-orch --help` takes, compared with a bare Python that does nothing."""

import sys
from pathlib import Path

from common import alternate, arguments, report, run, summary


def main() -> None:
    options = arguments(__doc__ or "").parse_args()
    command = Path(sys.executable).with_name("lary-orch")
    ways = {
        "help": lambda: run([command, "--help"], check=True, capture_output=True),
        "python": lambda: run([sys.executable, "-c", "pass"], check=True),
    }
    alternate(ways, 1)
    seconds = alternate(ways, max(options.rounds, 5))
    report("start", {"seconds": summary(seconds)}, options.save)


if __name__ == "__main__":
    main()
