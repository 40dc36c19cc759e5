"""`weights fetch` from a plain address, against a server on loopback."""

import threading
from collections.abc import Callable, Iterator
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from lary_orch.catalog.cards import Catalog
from lary_orch.weights.index import find_weights
from lary_orch.weights.url import fetch_url
from lary_schema.base import ContractError, ExitCode, WeightsError
from lary_schema.cards import WeightSpec
from pydantic import ValidationError

DATA = b"\x80\x02" + bytes(range(256)) * 20


class Files(ThreadingHTTPServer):
    """Files by name, as a plain web server gives them."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, bytes] = {"vitl.pt": DATA}
        self.cut = 0
        """Bytes to leave out at the end of a response."""
        self.ranges = True
        self.headers: dict[str, str] = {}
        """Instead of those that give a file's version."""
        self.before_get: Callable[[], None] = lambda: None
        self.requests: list[str] = []

    def url(self, name: str = "vitl.pt") -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/{name}"


class _Handler(BaseHTTPRequestHandler):
    server: Files
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        span = self.headers.get("Range")
        self.server.requests.append(f"{self.command} {span or 'all'}")
        if self.command == "GET":
            self.server.before_get()
        data = self.server.files.get(self.path.strip("/"))
        if data is None:
            self.send_error(404)
            return
        versions = self.server.headers or {"ETag": f'"{sha256(data).hexdigest()[:8]}"'}
        condition = self.headers.get("If-Range")
        fits = condition is None or condition in versions.values()
        start = int(span[6:-1]) if span and self.server.ranges and fits else 0
        self.send_response(206 if start else 200)
        for name, value in versions.items():
            self.send_header(name, value)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data[start : len(data) - self.server.cut])
            self.close_connection = self.server.cut > 0

    def log_message(self, *args: Any) -> None:
        """Log nothing."""


@pytest.fixture
def files() -> Iterator[Files]:
    server = Files()
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def spec(url: str, **fields: Any) -> WeightSpec:
    """A card would not name an address on loopback, nor one without https."""
    checked = WeightSpec(name="model", path="vitl.pt", url="https://here/vitl.pt", license="MIT", **fields)
    return checked.model_copy(update={"url": url})


def silent(line: str) -> None:
    """Nobody listens."""


def test_a_file_lands_at_its_path(files: Files, tmp_path: Path) -> None:
    target, said = tmp_path / "w" / "vitl.pt", list[str]()
    fetch_url(spec(files.url(), sha256=sha256(DATA).hexdigest()), target, said.append)
    assert target.read_bytes() == DATA
    assert [p.name for p in target.parent.iterdir()] == ["vitl.pt"]
    assert files.url() in said[0]
    assert said[1].endswith("fetched, MIT")
    assert f"({len(DATA)} bytes), sha256 {sha256(DATA).hexdigest()} (as the card says)" in said[1]


@pytest.mark.parametrize("ranges", [True, False])
def test_a_download_that_broke_off_goes_on(files: Files, tmp_path: Path, ranges: bool) -> None:
    files.cut, files.ranges = 1000, ranges
    with pytest.raises(WeightsError, match=rf"{len(DATA) - 1000} bytes came, {len(DATA)} were announced; what came"):
        fetch_url(spec(files.url()), tmp_path / "vitl.pt", silent)
    assert not (tmp_path / "vitl.pt").exists()
    files.cut = 0
    fetch_url(spec(files.url()), tmp_path / "vitl.pt", silent)
    assert (tmp_path / "vitl.pt").read_bytes() == DATA
    assert files.requests[-1] == f"GET bytes={len(DATA) - 1000}-"
    assert list(tmp_path.glob("*.partial")) == []


def test_another_file_at_the_same_address_is_not_glued_to_the_old_part(files: Files, tmp_path: Path) -> None:
    files.cut = 1000
    with pytest.raises(WeightsError):
        fetch_url(spec(files.url()), tmp_path / "vitl.pt", silent)
    files.cut, files.files["vitl.pt"] = 0, DATA[::-1]
    fetch_url(spec(files.url()), tmp_path / "vitl.pt", silent)
    assert (tmp_path / "vitl.pt").read_bytes() == DATA[::-1]


VERSIONS = {
    "a date": ({"Last-Modified": "Wed, 21 Oct 2015 07:28:00 GMT"}, True),
    "a weak tag and a date": ({"ETag": 'W/"a"', "Last-Modified": "Wed, 21 Oct 2015 07:28:00 GMT"}, True),
    "a weak tag": ({"ETag": 'W/"a"'}, False),
    "nothing": ({"X-Nothing": "1"}, False),
}


@pytest.mark.parametrize("version", VERSIONS)
def test_a_part_is_kept_if_the_server_tells_the_version(files: Files, tmp_path: Path, version: str) -> None:
    files.headers, goes_on = VERSIONS[version]
    files.cut = 1000
    with pytest.raises(WeightsError):
        fetch_url(spec(files.url()), tmp_path / "vitl.pt", silent)
    # Nobody can see that the file is another one by now, unless a version is given.
    files.cut, files.files["vitl.pt"] = 0, DATA if goes_on else DATA[::-1]
    fetch_url(spec(files.url()), tmp_path / "vitl.pt", silent)
    assert (tmp_path / "vitl.pt").read_bytes() == files.files["vitl.pt"]
    assert files.requests[-1] == (f"GET bytes={len(DATA) - 1000}-" if goes_on else "GET all")


@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize("resumed", [True, False])
def test_a_file_that_changes_between_request_and_response(
    files: Files, tmp_path: Path, resumed: bool, ranges: bool
) -> None:
    """The server announces one version and sends another: parts of the two are never joined."""
    target = tmp_path / "vitl.pt"
    files.ranges = ranges
    if resumed:
        files.cut = 1000
        with pytest.raises(WeightsError):
            fetch_url(spec(files.url()), target, silent)
    files.cut = 500
    files.before_get = lambda: files.files.update({"vitl.pt": DATA[::-1]})
    with pytest.raises(WeightsError, match="changed meanwhile"):
        fetch_url(spec(files.url()), target, silent)
    assert not target.exists()
    files.cut, files.before_get = 0, lambda: None
    files.files["vitl.pt"] = DATA
    fetch_url(spec(files.url()), target, silent)
    assert target.read_bytes() == DATA


@pytest.mark.parametrize("address", ["http://example.org/vitl.pt", "ftp://example.org/vitl.pt"])
def test_https_alone(files: Files, tmp_path: Path, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValidationError, match="url"):
        WeightSpec(name="model", path="vitl.pt", url=address, license="MIT")
    with pytest.raises(ContractError, match="https alone"):
        fetch_url(spec(address), tmp_path / "vitl.pt", silent)

    def redirected(self: _Handler) -> None:
        self.send_response(302)
        self.send_header("Location", address)
        self.send_header("Content-Length", "0")
        self.end_headers()

    monkeypatch.setattr(_Handler, "do_GET", redirected)
    with pytest.raises(ContractError, match="https alone"):
        fetch_url(spec(files.url()), tmp_path / "vitl.pt", silent)


def test_what_is_not_the_expected_file_is_not_kept(files: Files, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"expected by the card; nothing was kept"):
        fetch_url(spec(files.url(), sha256="0" * 64), tmp_path / "vitl.pt", silent)
    files.files["vitl.pt"] = b"<!doctype html><title>Moved</title>"
    with pytest.raises(WeightsError, match="a web page and not the file"):
        fetch_url(spec(files.url()), tmp_path / "vitl.pt", silent)
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_had_says_what_to_do(files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "vitl.pt"
    with pytest.raises(WeightsError, match=rf"none.pt: 404 Not Found; fetch it by hand to {target}") as caught:
        fetch_url(spec(files.url("none.pt")), target, silent)
    assert caught.value.exit_code == ExitCode.WEIGHTS
    with pytest.raises(WeightsError, match=r"refused; what came is kept.*fetch on another machine"):
        fetch_url(spec("http://127.0.0.1:9/vitl.pt"), target, silent)
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 3}))
    with pytest.raises(WeightsError, match=r"needs 5.0 KiB more, 3 B are free"):
        fetch_url(spec(files.url()), target, silent)


def test_an_address_that_is_none_is_refused_by_the_schema(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="url"):
        WeightSpec(name="model", path="vitl.pt", url="file:///etc/passwd", license="MIT")
    with pytest.raises(ValidationError, match="exclude each other"):
        spec("https://here/x.pt", repo="lab/net")


CARD = """
name: mine
kind: model
module: lary_worker
models:
  - key: mine
    title: mine
    paradigm: baseline
    modes: {image: {input: {shape: [2, 8, 8, 3], dtype: uint8}, tokens: [1, 1, 1]}}
    preprocessing: mine
    revision: 1
    license: MIT
    source: me
    weights:
      - {name: model, path: vitl.pt, license: MIT, url: "https://here/vitl.pt"}
      - {name: config, path: config.yaml, license: MIT, optional: true, env: MINE_CONFIG_PATH}
"""


def test_the_command(files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And that an optional weight is requested only where its variable says that it is there."""
    from lary_orch.cli.weights import command

    monkeypatch.delenv("MINE_CONFIG_PATH", raising=False)
    folder = tmp_path / "mine" / "src" / "lary_mine"
    folder.mkdir(parents=True)
    (folder / "image.yaml").write_text(CARD)
    opened = "lary_orch.weights.url._open"
    real = __import__("lary_orch.weights.url", fromlist=["_open"])._open
    monkeypatch.setattr(opened, lambda url, *a, **k: real(files.url(), *a, **k))
    options = ["mine", "--catalog", str(tmp_path), "--weights-dir", str(tmp_path / "w")]
    done = CliRunner().invoke(command, ["fetch", *options])
    assert done.exit_code == 0, done.output
    assert "1 of 1 weights are here" in done.output
    assert (tmp_path / "w" / "vitl.pt").read_bytes() == DATA
    assert CliRunner().invoke(command, ["verify", *options]).exit_code == 0
    card = Catalog.load([tmp_path], env={}).model_card("mine")
    assert find_weights(card, tmp_path / "w", tmp_path / "cache").hashes.keys() == {"model"}
    (tmp_path / "w" / "there.yaml").write_text("x: 1")
    monkeypatch.setenv("MINE_CONFIG_PATH", str(tmp_path / "w" / "there.yaml"))
    assert find_weights(card, tmp_path / "w", tmp_path / "cache").hashes.keys() == {"model", "config"}
    monkeypatch.setenv("MINE_CONFIG_PATH", str(tmp_path / "nowhere.yaml"))
    with pytest.raises(WeightsError, match=r"nowhere.yaml: missing \(weight 'config' of mine\)"):
        find_weights(card, tmp_path / "w", tmp_path / "cache")
    assert CliRunner().invoke(command, ["verify", *options]).exit_code == 4
