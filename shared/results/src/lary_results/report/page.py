"""The page: its head, its parts in their order."""

import base64
import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from lary_schema import commands

from lary_results.evaluations import Board
from lary_results.report import datasets, differences, failures, policies, provenance, studies
from lary_results.report.evidence import Evidence
from lary_results.report.markup import Child, Html, el, join, slug
from lary_results.report.standing import leaderboard
from lary_results.report.trajectories import Pictures
from lary_results.report.videos import Videos
from lary_results.study.arms import Study

HERE = Path(__file__).parent
TITLE = "LAM bench report"


def page(evidence: Evidence, pictures_mib: float, made_at: datetime, studied: Sequence[Study] = ()) -> bytes:
    """The whole document, UTF-8."""
    scores = [score for board in evidence.boards for score in board.kept]
    pictures = Pictures.choose(scores, pictures_mib)
    anchors = {file: f"r-{nth}" for nth, file in enumerate(dict.fromkeys(score.file for score in scores))}
    boards = [_board(evidence, nth, anchors, pictures) for nth in range(len(evidence.boards))]
    evaluated, broken = policies.found(evidence.folder)
    videos = Videos.choose(evaluated, pictures_mib)
    shown = [
        *map(studies.section, studied),
        *boards,
        *(policies.section(board, videos) for board in evaluated),
        *filter(None, [policies.unreadable(broken)]),
    ]
    body = el(
        "body",
        el(
            "header",
            el("h1", TITLE),
            el("p", _summary(evidence, made_at), class_="muted"),
            _navigation(evidence, studied, evaluated),
        ),
        el("main", shown or _empty(evidence), failures.section(evidence), provenance.section(evidence, anchors)),
        el("script", Html(_file("report.js"))),
    )
    return join(Html("<!DOCTYPE html>\n"), el("html", _head(), body, lang="en"), "\n").encode()


def _head() -> Html:
    """No request leaves the page: the policy allows what is in it, and only this one script."""
    digest = base64.b64encode(hashlib.sha256(_file("report.js").encode()).digest()).decode()
    policy = (
        f"default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; "
        "base-uri 'none'; form-action 'none'"
    )
    return el(
        "head",
        el("meta", charset="utf-8"),
        el("meta", http_equiv="Content-Security-Policy", content=policy),
        el("meta", name="viewport", content="width=device-width, initial-scale=1"),
        el("meta", name="color-scheme", content="light dark"),
        el("title", TITLE),
        el("style", Html(_file("report.css"))),
    )


def _file(name: str) -> str:
    return (HERE / name).read_text(encoding="utf-8")


def _summary(evidence: Evidence, made_at: datetime) -> str:
    results = len({score.file for board in evidence.boards for score in board.kept})
    when = made_at.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")
    return f"{results} results in {evidence.folder}, {when}, lary-orch {version('lary-orch')}"


def _navigation(evidence: Evidence, studied: Sequence[Study], evaluated: Sequence[Board]) -> Html:
    links: list[Child] = [
        el("a", f"study {study.name}", href=f"#{studies.anchor(study)}", class_="first") for study in studied
    ]
    for board in evidence.boards:
        more = "" if board.recipe is None else " (another recipe)"
        link = f"#{slug('p', board.key)}"
        links.append(el("a", f"protocol {board.protocol}{more}", href=link, class_="first"))
        links += [el("a", name, href=f"#{datasets.anchor(board, name)}") for name in datasets.names(board)]
    links += [
        el("a", f"policies on {board.benchmark}", href=f"#{policies.anchor(board)}", class_="first")
        for board in evaluated
    ]
    links.append(el("a", "failures", href="#failures", class_="first"))
    links.append(el("a", "provenance", href="#provenance", class_="first"))
    return el("nav", links)


def _board(evidence: Evidence, nth: int, anchors: dict[str, str], pictures: Pictures) -> Html:
    board = evidence.boards[nth]
    parts = [datasets.section(evidence, board, name, pictures) for name in datasets.names(board)]
    title = board.title[:1].upper() + board.title[1:]
    table = leaderboard(board, anchors)
    return el("section", el("h2", title), table, differences.section(board), parts, id=slug("p", board.key))


def _empty(evidence: Evidence) -> Html:
    text = f"No results in {evidence.folder} yet. This makes some:"
    return el("section", el("p", text), el("pre", commands.first_run()))
