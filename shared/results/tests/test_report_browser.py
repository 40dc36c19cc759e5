"""The report in a headless Chromium: its script runs under its policy, sorts, reads matrices and opens entries."""

import fcntl
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lary_orch.catalog.protocol_cards import protocol_titles
from lary_orch.workspace import Workspace
from lary_policy.videos import encoded
from lary_results.report.evidence import gather
from lary_results.report.page import page
from lary_schema.atomic import publish_bytes, publish_text
from lary_schema.evaluation import Episode, EpisodeProtocol, EvaluateValues, EvaluationResult

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-component-update",
    "--disable-background-networking", "--disable-sync", "--remote-debugging-pipe",
)  # fmt: skip

PAPER_PX = 1039
"""A4, landscape, without its margins."""


def _high_pipe() -> tuple[int, int]:
    """A pipe whose descriptors are none of those that get a meaning in the child."""
    low = os.pipe()
    high = tuple(fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 10) for fd in low)
    for fd in low:
        os.close(fd)
    return high[0], high[1]


class Browser:
    """One page, driven over Chromium's debugging pipe: JSON messages that end in a zero byte."""

    def __init__(self, profile: Path) -> None:
        (to_it, self._write), (self._read, from_it) = _high_pipe(), _high_pipe()
        # It reads from descriptor 3 and writes to 4; the shell puts our ends there.
        line = f'exec "$0" "$@" 3<&{to_it} 4>&{from_it}'
        command = ("/bin/bash", "-c", line, str(CHROMIUM), *FLAGS, f"--user-data-dir={profile}", "about:blank")
        self._process = subprocess.Popen(
            # It has a socket in TMPDIR, whose name may have 107 bytes.
            command,
            pass_fds=(to_it, from_it),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=os.environ | {"TMPDIR": "/tmp"},
        )
        os.close(to_it)
        os.close(from_it)
        self._buffer = b""
        self._sent = 0
        self.requests: list[str] = []
        self.errors: list[str] = []
        pages = [t for t in self.call("Target.getTargets")["targetInfos"] if t["type"] == "page"]
        attached = self.call("Target.attachToTarget", targetId=pages[0]["targetId"], flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    _session: str | None = None

    def call(self, method: str, **parameters: Any) -> Any:
        self._sent += 1
        message = {"id": self._sent, "method": method, "params": parameters}
        message |= {"sessionId": self._session} if self._session else {}
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            reply = self._next()
            if reply.get("id") == self._sent:
                assert "error" not in reply, reply
                return reply["result"]

    def _next(self) -> Any:
        while b"\0" not in self._buffer:
            piece = os.read(self._read, 1 << 16)
            assert piece, "Chromium went away"
            self._buffer += piece
        line, _, self._buffer = self._buffer.partition(b"\0")
        message = json.loads(line)
        if message.get("method") == "Network.requestWillBeSent":
            self.requests.append(message["params"]["request"]["url"])
        if message.get("method") in ("Runtime.exceptionThrown", "Log.entryAdded"):
            self.errors.append(json.dumps(message["params"]))
        return message

    def open(self, url: str) -> None:
        self.call("Page.navigate", url=url)
        self.run("new Promise(done => document.readyState === 'complete' ? done() : addEventListener('load', done))")

    def run(self, script: str) -> Any:
        """The value of an expression in the page."""
        reply = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in reply, reply
        return reply["result"].get("value")

    def size(self, width: int, height: int = 900) -> None:
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )

    def close(self) -> None:
        self._session = None
        self.call("Browser.close")
        self._process.wait(timeout=280)
        os.close(self._read)
        os.close(self._write)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    made = Browser(tmp_path_factory.mktemp("profile"))
    yield made
    made.close()


@pytest.fixture
def url(workspace: Workspace, write: Callable[..., Path]) -> str:
    """Of a page with three models, a large matrix, and a name that would run."""
    for model, top1, mse in (
        ("a", 0.1, 0.9),
        ("b", 0.9, 0.5),
        ("<script>window.ran = 1</script>"[:1] + "c", 0.5, None),
    ):
        name = model.replace("<", "")
        folder = write(name, "toy", {"val": top1}, device="<script>window.ran = 1</script>")
        if mse is not None:
            write(model, "arm", {"val": mse}, metric="mse")
    labels = [f"<img src=x onerror=window.ran=1> {n}" for n in range(123)]
    counts = [[5 if r == c else int(c == 7) for c in range(123)] for r in range(123)]
    publish_text(folder / "confusion_matrix.json", json.dumps({"labels": labels, "rows": "truth", "matrix": counts}))
    out = workspace.root / "report.html"
    out.write_bytes(
        page(gather(workspace.results, workspace.runs, titles=protocol_titles()), 12, datetime(2026, 1, 2, tzinfo=UTC))
    )
    return out.as_uri()


def order(browser: Browser) -> list[str]:
    found = browser.run("[...document.querySelectorAll('.board tbody th')].map(th => th.firstChild.data.trim())")
    assert isinstance(found, list)
    return found


def click(browser: Browser, column: int) -> str:
    header = f"document.querySelectorAll('.board thead th')[{column}]"
    return str(browser.run(f"{header}.click(), {header}.getAttribute('aria-sort')"))


def test_the_page_in_a_browser(browser: Browser, url: str) -> None:
    browser.open(url)
    assert order(browser) == ["b", "c", "a"]
    # The best first, then the worst; a model without a score stays last.
    assert (click(browser, 2), order(browser)) == ("ascending", ["b", "a", "c"])
    assert (click(browser, 2), order(browser)) == ("descending", ["a", "b", "c"])
    assert (click(browser, 1), order(browser)) == ("descending", ["b", "c", "a"])
    assert (click(browser, 0), order(browser)) == ("ascending", ["a", "b", "c"])

    read = """(() => {
      document.querySelectorAll('details').forEach(one => one.open = true);
      const svg = document.querySelector('svg[data-cells]');
      const box = svg.querySelector('.field').getBoundingClientRect();
      const at = { clientX: box.left + box.width * 7.5 / 123, clientY: box.top + box.height * 20.5 / 123 };
      svg.dispatchEvent(new PointerEvent('pointermove', { ...at, bubbles: true }));
      return document.querySelector('.readout').textContent;
    })()"""
    text = browser.run(read)
    label = "<img src=x onerror=window.ran=1>"
    assert text == f"truth {label} 20 → prediction {label} 7: 1 of 6 rows (16.7 %)"

    browser.open(f"{url}#r-0")
    assert browser.run("document.getElementById('r-0').closest('details').open") is True
    assert browser.run("window.ran") is None
    assert browser.errors == []
    assert {request.partition("#")[0] for request in browser.requests} == {url}


@pytest.mark.parametrize("width", [360, 1280])
def test_no_width_makes_the_page_scroll_sideways(browser: Browser, url: str, width: int) -> None:
    browser.size(width)
    browser.open(url)
    browser.run("document.querySelectorAll('details').forEach(one => one.open = true)")
    wide = f"[...document.querySelectorAll('body *')].filter(e => e.getBoundingClientRect().right > {width})"
    assert browser.run("document.documentElement.scrollWidth") <= width, browser.run(f"{wide}.map(e => e.outerHTML)")


LONG = "scripted_distractor_lighting_camera_pairs_of_a_set"


@pytest.mark.parametrize("width", [390, 800, 1280])
def test_long_names_and_further_figures_fit(
    browser: Browser, workspace: Workspace, write: Callable[..., Path], width: int
) -> None:
    """The page never scrolls; at the width of a laptop neither does the table of all scores."""
    for model in ("frame-diff", f"model-{LONG}"):
        folder = write(model, LONG, {"val": 0.5}, metric="mse", variant="corrected", failed=3)
        document = json.loads((folder / "result.json").read_text())
        document["splits"]["val"]["unknown_robots"] = {f"a long name of figure {n}": n for n in range(20)}
        document["splits"]["val"]["seeds"][0]["best"]["optimiser"] = 4
        publish_text(folder / "result.json", json.dumps(document))
    evidence = gather(workspace.results, workspace.runs)
    assert evidence.unreadable == ()
    out = workspace.root / "report.html"
    out.write_bytes(page(evidence, 1, datetime(2026, 1, 2, tzinfo=UTC)))
    browser.size(width)
    browser.open(out.as_uri())
    browser.run("document.querySelectorAll('details').forEach(one => one.open = true)")
    assert "a long name of figure 19 19" in browser.run("document.body.innerText")
    assert browser.run("document.documentElement.scrollWidth") <= width
    header = "[...e.querySelectorAll('th')].some(th => th.innerText == '95 % interval')"
    tables = f"[...document.querySelectorAll('section section .scroll')].filter(e => {header})"
    (room,) = browser.run(f"{tables}.map(e => e.clientWidth - e.scrollWidth)")
    assert room >= 0 or width < 1280


def test_printing_opens_what_is_folded(browser: Browser, url: str) -> None:
    browser.open(url)
    browser.run("window.seen = 0; addEventListener('beforeprint', () => window.seen = 1)")
    folded = "document.querySelectorAll('details:not([open])').length"
    before = browser.run(folded)
    browser.run("dispatchEvent(new Event('beforeprint'))")
    assert browser.run(folded) == browser.run("document.querySelectorAll('details.inner').length")
    browser.run("dispatchEvent(new Event('afterprint'))")
    assert browser.run(folded) == before
    assert len(browser.call("Page.printToPDF")["data"]) > 10_000


def test_on_paper_provenance_is_one_line_a_result(browser: Browser, url: str) -> None:
    def shown(what: str) -> int:
        return int(browser.run(f"[...document.querySelectorAll('{what}')].filter(e => e.offsetParent).length"))

    browser.size(PAPER_PX)
    browser.open(url)
    results = browser.run("document.querySelectorAll('details.trace').length")
    assert (shown("details.trace"), shown(".paper tbody tr")) == (results, 0)
    browser.call("Emulation.setEmulatedMedia", media="print")
    assert (shown("details.trace"), shown(".paper tbody tr")) == (0, results)
    text = browser.run("document.querySelector('#provenance .paper').innerText")
    assert {"f1f1f1f1f1f1", "model abababababab", "c5c5c5c5c5c5", "0e0e0e0e0e0e"} <= set(re.split(r"[\t\n]", text))
    assert browser.run("document.documentElement.scrollWidth") <= PAPER_PX
    browser.call("Emulation.setEmulatedMedia", media="")


def test_a_video_plays_in_a_page_that_was_copied(browser: Browser, tmp_path: Path) -> None:
    """As the simulators' side writes it, and with nothing beside the page."""
    values = EvaluateValues(
        policy="p", policy_code_sha256="c", benchmark="b", benchmark_code_sha256="d", task="t", states=(0,), seed=0,
        protocol=EpisodeProtocol(horizon=9, settle=0),
    )  # fmt: skip
    one = Episode(state=0, success=True, steps=9, trace_sha256="ab" * 32)
    result = EvaluationResult(fingerprint=values.fingerprint, values=values, episodes=(one,), simulator_image="i")
    folder = tmp_path / "results/evaluate/b/p/t"
    publish_text(folder / "evaluation.json", result.to_json())
    frames = [np.full((64, 64, 3), 25 * n, np.uint8) for n in range(10)]
    publish_bytes(folder / one.video, encoded(frames, Fraction(5)))
    made = page(gather(tmp_path / "results", tmp_path / "runs"), 1, datetime(2026, 1, 2, tzinfo=UTC))
    out = tmp_path / "elsewhere" / "copy.html"
    publish_bytes(out, made)
    shutil.rmtree(tmp_path / "results")

    browser.size(400)
    browser.open(out.as_uri())
    at_its_end = """new Promise((done, failed) => {
      const video = document.querySelector('video');
      video.addEventListener('error', () => failed(video.error.message));
      video.addEventListener('seeked', () => {
        const canvas = document.createElement('canvas');
        canvas.width = canvas.height = 1;
        const context = canvas.getContext('2d');
        context.drawImage(video, 0, 0, 1, 1);
        done([video.videoWidth, video.duration, context.getImageData(0, 0, 1, 1).data[0]]);
      });
      const seek = () => { video.currentTime = video.duration - .1; };
      video.readyState ? seek() : video.addEventListener('loadedmetadata', seek);
    })"""
    width, seconds, level = browser.run(at_its_end)
    assert (width, seconds) == (256, 2)
    assert level == pytest.approx(225, abs=8)
    assert browser.run("document.documentElement.scrollWidth") <= 400
    assert browser.errors == []
