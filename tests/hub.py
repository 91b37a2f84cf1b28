"""A model hub on loopback, for the real clients: the Hugging Face Hub's addresses and ModelScope's.

Answers HEAD and GET of `/{repo}/resolve/{revision}/{file}` and `/models/{repo}/resolve/{revision}/{file}`, with
ranges, and for the hub with the headers that huggingface_hub reads. `faults` says what goes wrong with the next
contents asked for, one each; `requests` is what was asked.
"""

from __future__ import annotations

import hashlib
import re
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from q3e_local.models.download import http

REFUSED = "http://127.0.0.1:9"  # discard: nobody listens
_RANGE = re.compile(r"bytes=(\d+)-")
_PIECE = 64 << 10


@dataclass(frozen=True)
class Request:
    """A request, as it came."""

    method: str
    path: str
    range: str | None
    authorization: str | None
    port: int


@dataclass(frozen=True)
class Fault:
    """What goes wrong when a content is sent."""

    status: int | None = None  # instead of the content
    headers: dict[str, str] = field(default_factory=dict)  # beside the usual ones
    cut_after: int | None = None  # the connection breaks after this many bytes of the body
    content: bytes | None = None  # this in place of the file
    ignores_range: bool = False
    delay_s: float = 0.0  # before it answers
    gate: threading.Event | None = None  # waited for after the first 64 KiB


class Hub:
    """`add` files, then point HF_ENDPOINT or Q3E_MODELSCOPE_ENDPOINT at `url`."""

    def __init__(self, url: str, cdn_url: str) -> None:
        self.url = url
        self.cdn_url = cdn_url  # the same server, under another origin
        self.redirects = False  # to the CDN, as the real hub does for large files
        self.commit: str | None = None  # what a branch stands for; None: revisions are commits
        self.has_linked_headers = True  # a plain mirror may drop them
        self.faults: deque[Fault] = deque()
        self.always: Fault | None = None
        self.requests: list[Request] = []
        self._files: dict[tuple[str, str, str], bytes] = {}

    def add(self, repo: str, revision: str, file: str, content: bytes) -> None:
        self._files[repo, revision, file] = content

    def contents_asked(self) -> list[Request]:
        """The requests that ask for a content, redirects to the CDN not counted."""
        return [request for request in self.requests if request.method == "GET" and "/resolve/" in request.path]

    def find(self, path: str) -> tuple[str, bytes] | None:
        """Revision and content of a path."""
        for (repo, revision, file), content in self._files.items():
            if path in (f"/{repo}/resolve/{revision}/{file}", f"/models/{repo}/resolve/master/{file}"):
                return revision, content
        return None

    def next_fault(self) -> Fault:
        return self.always or (self.faults.popleft() if self.faults else Fault())


def go_online(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Allow the network, without proxies, a token or long waits; our folders and the cache are below `folder`."""
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setenv("Q3E_HOME", str(folder / "q3e"))
    monkeypatch.setenv("HF_HUB_CACHE", str(folder / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(folder / "token"))
    monkeypatch.setattr(http, "PAUSES_S", (0.01, 0.01, 0.01))


@contextmanager
def serve() -> Iterator[Hub]:
    """A hub for as long as the context lasts."""
    servers = [_Server(("127.0.0.1", 0), _Handler) for _ in range(2)]
    hub = Hub(*(f"http://127.0.0.1:{server.server_port}" for server in servers))
    for server in servers:
        server.hub = hub
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield hub
    finally:
        for server in servers:
            server.shutdown()
            server.server_close()


class _Server(ThreadingHTTPServer):
    hub: Hub
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that was killed is part of the play."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def _answer(self) -> None:
        hub, is_cdn = self.server.hub, self.path.startswith("/cdn")
        hub.requests.append(
            Request(
                self.command,
                self.path,
                self.headers.get("Range"),
                self.headers.get("Authorization"),
                self.server.server_port,
            )
        )
        found = hub.find(self.path.removeprefix("/cdn"))
        if found is None:
            self._end(404, {"X-Error-Code": "EntryNotFound", "X-Error-Message": "Entry not found"})
            return
        revision, content = found
        is_hub = not self.path.startswith("/models/") and not is_cdn
        headers = self._hub_headers(revision, content) if is_hub else {}
        if hub.redirects and is_hub:
            self._end(302, headers | {"Location": f"{hub.cdn_url}/cdn{self.path}"})
            return
        if self.command == "HEAD":
            self._end(200, headers | {"Content-Length": str(len(content)), "Accept-Ranges": "bytes"})
            return
        self._send(content, headers, hub.next_fault())

    def _hub_headers(self, revision: str, content: bytes) -> dict[str, str]:
        digest = hashlib.sha256(content).hexdigest()
        headers = {"ETag": f'"{digest}"', "X-Repo-Commit": self.server.hub.commit or revision}
        if self.server.hub.has_linked_headers:
            headers |= {"X-Linked-ETag": f'"{digest}"', "X-Linked-Size": str(len(content))}
        return headers

    def _send(self, content: bytes, headers: dict[str, str], fault: Fault) -> None:
        headers = headers | fault.headers
        time.sleep(fault.delay_s)
        if fault.status is not None:
            self._end(fault.status, headers, b"" if fault.content is None else fault.content)
            return
        content = content if fault.content is None else fault.content
        asked = _RANGE.fullmatch(self.headers.get("Range", ""))
        start = int(asked[1]) if asked and not fault.ignores_range else 0
        if asked and start >= len(content):
            self._end(416, headers | {"Content-Range": f"bytes */{len(content)}"})
            return
        headers = headers | {"Content-Length": str(len(content) - start)}
        if asked and not fault.ignores_range:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        self.send_response(206 if asked and not fault.ignores_range else 200)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        body = content[start:]
        to_send = body if fault.cut_after is None else body[: fault.cut_after]
        for offset in range(0, len(to_send), _PIECE):
            self.wfile.write(to_send[offset : offset + _PIECE])
            if offset == 0 and fault.gate is not None:
                fault.gate.wait(20)
        if len(to_send) < len(body):
            self.close_connection = True
            self.connection.shutdown(2)

    def _end(self, status: int, headers: dict[str, str], body: bytes = b"") -> None:
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
