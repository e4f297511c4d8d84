"""A server for downloads that cuts, lies, refuses, redirects and changes its mind, as a test plans it."""

from __future__ import annotations

import hashlib
import http.server
import shutil
import ssl
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

CONTENT = hashlib.sha256(b"seed").digest() * 30_000  # 960 kB


@dataclass
class Answer:
    """How the server treats one request."""

    status: int = 200
    cut: int | None = None
    """Bytes of the body after which the connection is closed."""
    announce: int | str | None = "true"
    """Content-Length: the true one, another one, or none."""
    chunked: bool = False
    location: str = ""
    hold: bool = False
    """Wait for `Site.go` after the cut instead of closing."""
    extra: dict[str, str] = field(default_factory=dict)


class Site(http.server.ThreadingHTTPServer):
    """Serves ``content`` to every path, by the answers planned; when these are used up, honestly."""

    daemon_threads = True
    answer = Answer

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content, self.etag, self.modified, self.ranges = CONTENT, '"one"', "Mon, 01 Jan 2024 00:00:00 GMT", True
        self.honours_if_range = True
        self.always: Answer | None = None
        self.plan: list[Answer] = []
        self.asked: list[str] = []
        self.marks: list[str | None] = []
        self.served = 0
        self.go = threading.Event()

    def handle_error(self, request: object, address: object) -> None:
        pass  # clients that are killed

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/file.bin"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Site

    def do_GET(self) -> None:
        site = self.server
        site.asked.append(self.headers.get("Range", "all"))
        site.marks.append(self.headers.get("If-Range"))
        answer = site.plan.pop(0) if site.plan else site.always or Answer()
        if answer.location:
            self.send_response(answer.status)
            self.send_header("Location", answer.location)
            self.end_headers()
            return
        if answer.status >= 400:
            self.send_response(answer.status, "No \x1b[31mfile")
            for name, value in answer.extra.items():
                self.send_header(name, value)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        start = self.start()
        if start >= len(site.content):
            self.send_error(416)
            return
        body = site.content[start:]
        self.send_response(206 if start else answer.status)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(site.content) - 1}/{len(site.content)}")
        for name, value in {"ETag": site.etag, "Last-Modified": site.modified, **answer.extra}.items():
            if value:
                self.send_header(name, value)
        if answer.chunked:
            self.send_header("Transfer-Encoding", "chunked")
        elif answer.announce is not None:
            self.send_header("Content-Length", str(len(body) if answer.announce == "true" else answer.announce))
        self.end_headers()
        self.send(body[: answer.cut], answer.chunked, answer.cut is None)
        if answer.hold:
            site.go.wait(20)

    def start(self) -> int:
        site, asked = self.server, self.headers.get("Range")
        if not site.ranges or asked is None:
            return 0
        mark = self.headers.get("If-Range")
        if site.honours_if_range and mark is not None and mark not in (site.etag, site.modified):
            return 0
        return int(asked.removeprefix("bytes=").rstrip("-"))

    def send(self, body: bytes, chunked: bool, whole: bool) -> None:
        for begin in range(0, len(body), 50_000):
            piece = body[begin : begin + 50_000]
            self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece) if chunked else piece)
            self.server.served += len(piece)
        if chunked and whole:
            self.wfile.write(b"0\r\n\r\n")

    def log_message(self, *arguments: object) -> None:
        pass


def running(server: Site) -> Iterator[Site]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.go.set()
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def site() -> Iterator[Site]:
    yield from running(Site())


@pytest.fixture
def secure(tmp_path: Path) -> Iterator[Site]:
    """A server behind TLS whose certificate is in ``tmp_path``."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl program to make a certificate with")
    certificate = tmp_path / "certificate.pem"
    line = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    line += ["-addext", "subjectAltName=DNS:localhost", "-keyout", str(tmp_path / "key.pem"), "-out", str(certificate)]
    subprocess.run(line, check=True, capture_output=True)
    server = Site()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, tmp_path / "key.pem")
    server.socket = context.wrap_socket(server.socket, server_side=True)
    yield from running(server)
