"""The docs site: copy the pages, write the generated ones, build strictly with every link checked.

    python scripts/docs_site.py [--pages FOLDER] [--site FOLDER]

Pages lie in the copy as they lie in the repository, so a relative link works in both. What a page links to (a picture,
a file of results) is copied too. A link that leads nowhere, or to a heading that is not there, ends in exit code 1.
"""

import argparse
import logging
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(Path(__file__).parent))

import docs_reference  # noqa: E402 - a neighbour of this script

PAGES = (
    "*.md",
    "docs/**/*.md",
    "images/*/README.md",
    "shared/*/README.md",
    "tests/*/README.md",
    "benchmarks/README.md",
)
LINK = re.compile(r"\]\(([^)\s#]+)[^)\n]*\)|<img[^>]+src=\"([^\"]+)\"")


def pages() -> list[Path]:
    """The site's Markdown files, relative to the repository."""
    return sorted({path.relative_to(ROOT) for pattern in PAGES for path in ROOT.glob(pattern)})


def linked(page: Path) -> Iterator[Path]:
    """Files of the repository that a page links to and that are no pages."""
    for match in LINK.finditer((ROOT / page).read_text(encoding="utf-8")):
        target = (ROOT / page).parent / (match[1] or match[2])
        if "://" not in str(match[0]) and target.is_file() and target.suffix != ".md":
            yield target.resolve().relative_to(ROOT)


def copy(target: Path) -> None:
    """Everything the site is made from, in `target`, which is emptied first."""
    shutil.rmtree(target, ignore_errors=True)
    found = pages()
    for file in {*found, *(file for page in found for file in linked(page))}:
        (target / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / file, target / file)
    docs_reference.write(ROOT, target)


def named(nav: Any) -> set[str]:
    """Pages that a navigation names."""
    if isinstance(nav, str):
        return {nav}
    entries = nav.values() if isinstance(nav, dict) else nav
    return {page for entry in entries for page in named(entry)}


def build(target: Path, site: Path) -> int:
    """Warnings of the build; each is printed."""
    from mkdocs.commands.build import build as build_site
    from mkdocs.config import load_config
    from mkdocs.utils import CountHandler

    counter = CountHandler()
    counter.setLevel(logging.WARNING)
    shown = logging.StreamHandler()
    shown.setLevel(logging.WARNING)
    for handler in (counter, shown):
        logging.getLogger("mkdocs").addHandler(handler)
    config = load_config(str(ROOT / "mkdocs.yml"), docs_dir=str(target), site_dir=str(site))
    more = sorted(
        page.as_posix()
        for page in (path.relative_to(target) for path in target.rglob("*.md"))
        if page.as_posix() not in named(config.nav) and page.parts[:2] != ("docs", "decisions")
    )
    assert isinstance(config.nav, list)
    config.nav.append({"More": more})
    config.plugins.on_startup(command="build", dirty=False)
    build_site(config)
    return sum(count for _, count in counter.get_counts())


def main() -> None:
    parser = argparse.ArgumentParser(description="Build the docs site; every link is checked.")
    parser.add_argument("--pages", type=Path, default=ROOT / "build/docs")
    parser.add_argument("--site", type=Path, default=ROOT / "build/site")
    options = parser.parse_args()
    copy(options.pages)
    if warnings := build(options.pages, options.site):
        sys.exit(f"{warnings} warnings: fix the links above")
    print(f"{options.site}/index.html")


if __name__ == "__main__":
    main()
