"""Numbers of options: what is no number lets every check pass."""

import re
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from lary_schema.option_types import SECONDS, FiniteRange


@click.command()
@click.option("--share", type=FiniteRange(0, 1), default=0.5)
@click.option("--seconds", type=SECONDS, default=1.0)
def command(share: float, seconds: float) -> None:
    click.echo(f"{share} {seconds}")


@pytest.mark.parametrize("text", ["nan", "NaN", "-nan", "inf", "-inf", "infinity", "1e999", "x", "", "-1", "2e9"])
@pytest.mark.parametrize("name", ["--share", "--seconds"])
def test_what_is_no_number_of_the_range_is_refused(name: str, text: str) -> None:
    done = CliRunner().invoke(command, [name, text])
    assert done.exit_code == 2
    assert f"Invalid value for '{name}'" in done.output


def test_others_are_taken() -> None:
    assert CliRunner().invoke(command, ["--share", "1", "--seconds", "1e-3"]).output == "1.0 0.001\n"
    assert CliRunner().invoke(command, []).output == "0.5 1.0\n"
    assert CliRunner().invoke(command, ["--seconds", "0"]).exit_code == 2


def test_no_command_takes_others() -> None:
    top = Path(__file__).parents[3]
    if not (top / "orchestrator").is_dir():
        pytest.skip("not in the repository")
    sources = [
        path for folder in ("orchestrator", "shared/*", "images/*") for path in top.glob(f"{folder}/src/**/*.py")
    ]
    pattern = re.compile(r"click\.FloatRange|option\([^()]*type=float\b")
    found = [path for path in sources if pattern.search(path.read_text(encoding="utf-8"))]
    assert sources
    assert [path.name for path in found] == ["option_types.py"]
