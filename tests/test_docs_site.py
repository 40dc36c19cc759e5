"""The docs site builds, its links lead somewhere, and its generated pages hold what they are generated from."""

import json
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest
from lary_orch.cli import cli

REPO = Path(__file__).parents[1]
BUILD = """
import sys
from pathlib import Path
import docs_site
pages, site = map(Path, sys.argv[1:])
docs_site.copy(pages)
(pages / "docs/planted.md").write_text("[a](nowhere.md) [b](results.md#nothing) [c](results.md#a-cell)")
print("warnings:", docs_site.build(pages, site))
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The built site with one page more, whose links are bad; and what the build printed."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-c", BUILD, str(folder / "pages"), str(folder / "site")]
    done = subprocess.run(command, cwd=REPO / "scripts", capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder / "site", done.stdout + done.stderr


def test_all_links_lead_somewhere_but_the_planted_ones(built: tuple[Path, str]) -> None:
    _, printed = built
    assert "warnings: 2" in printed, printed
    assert "'docs/nowhere.md' is not found" in printed
    assert "does not contain an anchor '#nothing'" in printed


def test_every_page_is_in_the_navigation(built: tuple[Path, str]) -> None:
    """Those that mkdocs.yml does not name stand under "More"."""
    index = (built[0] / "index.html").read_text(encoding="utf-8")
    pages = [path.relative_to(REPO).with_suffix(".html") for path in REPO.glob("docs/*.md")]
    assert [page for page in (*pages, Path("docs/planted.html")) if f'href="{page.as_posix()}"' not in index] == []


def test_every_command_has_its_help(built: tuple[Path, str]) -> None:
    page = (built[0] / "reference/commands.html").read_text(encoding="utf-8")
    for name in (*cli.list_commands(click.Context(cli)), "data manifest lerobot", "latents import", "weights fetch"):
        assert f'id="lary-orch-{name.replace(" ", "-")}"' in page, name
    assert "--every" in page
    assert page.count("--allow-unknown-robot") >= 1
    assert "--codes" in page
    assert "data latents-import" not in page, "what a user types is `latents import`"
    assert "--labelled" in page, "of a command that another package adds"


def test_schemas_and_classes_stand_there(built: tuple[Path, str]) -> None:
    schemas = (built[0] / "reference/schemas.html").read_text(encoding="utf-8")
    for path in (REPO / "shared/schema/schemas").glob("*.json"):
        assert f'href="{path.name}"' in schemas
        assert json.loads((built[0] / "reference" / path.name).read_text(encoding="utf-8"))
    python = (built[0] / "reference/python.html").read_text(encoding="utf-8")
    for name in ("lary_schema.cards.DatasetCard", "lary_worker.model.Model.encode", "lary_trainer.trainee.Trainee"):
        assert f'id="{name}"' in python


def test_the_notebook_was_run(built: tuple[Path, str]) -> None:
    page = (built[0] / "docs/notebook.html").read_text(encoding="utf-8")
    assert re.search(r"random-vit\s+demo_motion", page)
    picture = re.search(r'src="(notebook/\d+\.png)"', page)
    assert picture is not None
    assert (built[0] / "docs" / picture[1]).stat().st_size > 5000


def test_the_citation_is_of_this_version() -> None:
    text = (REPO / "CITATION.cff").read_text(encoding="utf-8")
    assert f"version: {(REPO / 'VERSION').read_text(encoding='utf-8').strip()}\n" in text
