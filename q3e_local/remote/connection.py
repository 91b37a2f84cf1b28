"""Embed on a running q3e-local server: looks like an Embedder to the command line, and computes nothing.

Knows HTTP as far as this one server speaks it. Needs no httpx: the standard library connects, and reads no proxy
variables, so that texts stay on this machine unless the address says otherwise.
"""

from __future__ import annotations

import base64
import http.client
import json
import os
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import numpy as np

from q3e_local import address
from q3e_local.address import Address
from q3e_local.errors import (
    InvalidTextError,
    ModelNotHereError,
    OptionError,
    Q3EError,
    TextError,
    UnknownModelError,
)
from q3e_local.request import Embedded, EmbedRequest
from q3e_local.stream import Progress

_CONNECT_S = 10.0
_ANSWER_S = 1800.0  # a window of long texts on a slow machine, behind others', and a model to load first
_PATIENCE_S = 300.0  # with a server that is busy or starting again
_PAUSE_S = 1.0

# A window grows and shrinks so that answers keep coming, and the server always has full batches.
_WINDOW_S = (1.0, 4.0)
_WINDOW_BYTES = (4_096, 1 << 20)
_WINDOW_TEXTS = 256


class ServerUnreachableError(Q3EError):
    """Nobody answers at the address, or what answers is no q3e-local server."""


class ServerRefusedError(Q3EError):
    """The server answered that it will not; `status` is HTTP's."""

    def __init__(self, message: str, status: int, fields: Mapping[str, Any]) -> None:
        super().__init__(message)
        self.status, self.fields = status, fields


def server_address(given: str | None = None, environ: Mapping[str, str] | None = None) -> str:
    """The address a command talks to: the option's, `Q3E_SERVER`, `OLLAMA_HOST`, or the default."""
    environ = os.environ if environ is None else environ
    for text in (given, environ.get("Q3E_SERVER"), environ.get("OLLAMA_HOST")):
        if text and address.unquoted(text):
            return address.unquoted(text)
    return str(Address())


class Server:
    """A connection that is kept.

    Addresses are read as `OLLAMA_HOST` is; `unix:PATH` is a Unix socket, a number alone a port of this machine.
    """

    def __init__(self, text: str, api_key: str | None = None) -> None:
        self.name = text
        self._unix = text.removeprefix("unix:") if text.startswith("unix:") else None
        # A number alone would be an IP address of one number, which nobody means.
        spelled = f":{text}" if text.isascii() and text.isdigit() else text
        self._address = Address() if self._unix else address.parse(spelled).to_connect()
        if self._address.scheme not in ("http", "https"):
            raise OptionError(f"a server's address is one of http or https, or unix:PATH, got {text!r}")
        if self._unix is None:
            self.name = str(self._address)
        key = os.environ.get("Q3E_API_KEY", "").partition(",")[0].strip() if api_key is None else api_key
        self._headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if key:
            self._headers["Authorization"] = f"Bearer {key}"
        self._connection: http.client.HTTPConnection | None = None

    def ask(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        """The JSON object answered; waits and asks again while the server is busy.

        Raises ServerUnreachableError or ServerRefusedError.
        """
        data = None if body is None else json.dumps(body).encode("utf-8")
        waited = 0.0
        while True:
            status, headers, content = self._once(method, path, data)
            if status not in (429, 503) or waited >= _PATIENCE_S:
                break
            pause = _retry_after_s(headers)
            time.sleep(pause)
            waited += pause
        return self._read(path, status, content)

    def close(self) -> None:
        """Hang up."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _once(self, method: str, path: str, data: bytes | None) -> tuple[int, http.client.HTTPMessage, bytes]:
        for is_last in (False, True):
            was_open = self._connection is not None
            try:
                connection = self._connected()
                connection.request(method, self._address.path + path, data, self._headers)
                answer = connection.getresponse()
                return answer.status, answer.headers, answer.read()
            except (OSError, http.client.HTTPException) as error:
                self.close()
                # A connection that was kept may have ended meanwhile; a new one that fails says something.
                if is_last or not was_open or isinstance(error, TimeoutError):
                    raise ServerUnreachableError(self._why(error)) from None
        raise AssertionError("unreachable")

    def _connected(self) -> http.client.HTTPConnection:
        if self._connection is None:
            connection: http.client.HTTPConnection
            if self._unix is not None:
                connection = _UnixConnection(self._unix, timeout=_CONNECT_S)
            elif self._address.scheme == "https":
                connection = http.client.HTTPSConnection(self._address.host, self._address.port, timeout=_CONNECT_S)
            else:
                connection = http.client.HTTPConnection(self._address.host, self._address.port, timeout=_CONNECT_S)
            connection.connect()
            connection.sock.settimeout(_ANSWER_S)
            if self._unix is None:
                connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._connection = connection
        return self._connection

    def _why(self, error: Exception) -> str:
        if isinstance(error, ConnectionRefusedError | FileNotFoundError):
            return f"no server answers at {self.name}; start one with: q3e-local serve"
        if isinstance(error, socket.gaierror):
            return f"there is no host {self._address.host!r}; is the server's address right?"
        if isinstance(error, TimeoutError):
            return f"the server at {self.name} does not answer in time"
        if isinstance(error, http.client.HTTPException) and not isinstance(error, http.client.RemoteDisconnected):
            return f"what answers at {self.name} is no HTTP server"
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        return f"the connection to {self.name} failed: {reason}"

    def _read(self, path: str, status: int, content: bytes) -> dict[str, Any]:
        try:
            fields = json.loads(content)
        except ValueError:
            fields = None
        if status == 200 and isinstance(fields, dict):
            return fields
        if status == 200 or (status in (404, 405) and not isinstance(fields, dict)):
            raise ServerUnreachableError(f"the server at {self.name} is no q3e-local: it does not know {path}")
        error = fields.get("error") if isinstance(fields, dict) else None
        if isinstance(error, dict):
            error = error.get("message")
        if status == 401:
            error = "the server wants a key; set Q3E_API_KEY to it"
        message = f"{self.name}: {error or f'answered with status {status}'}"
        raise ServerRefusedError(message, status, fields if isinstance(fields, dict) else {})


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        if not hasattr(socket, "AF_UNIX"):
            raise OptionError("Unix sockets are not supported on this system")
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def _retry_after_s(headers: http.client.HTTPMessage) -> float:
    text = headers.get("Retry-After", "")
    return min(60.0, max(0.1, float(text))) if text.replace(".", "", 1).isdigit() else _PAUSE_S


@dataclass(frozen=True)
class _Answer:
    results: list[Embedded]
    model: str
    space: str
    dim: int


class RemoteEmbedder:
    """The part of Embedder that `q3e-local embed` uses, on a server. Close it when done."""

    def __init__(self, server: Server, model: str) -> None:
        self._server, self._asked = server, model
        self.model = model
        self._known: dict[tuple[Any, ...], _Answer] = {}

    def dim(self, request: EmbedRequest) -> int:
        """How many numbers this request's embeddings have."""
        return self._probe(request).dim

    def space(self, request: EmbedRequest) -> str:
        """The name of the vector space this request's embeddings live in."""
        return self._probe(request).space

    def check(self, request: EmbedRequest) -> None:
        """Raise OptionError for what the server's model cannot do, and what `stream` raises at once."""
        self._probe(request)

    def stream(self, request: EmbedRequest, progress: Progress | None = None) -> Iterator[Embedded | TextError]:
        """One item for each text, in order; a text that cannot be embedded is its TextError.

        Raises OptionError at once, and ModelError, ServerUnreachableError or ServerRefusedError.
        """
        space = self._probe(request).space
        return self._stream(request, space, progress)

    def close(self) -> None:
        """Hang up; the server keeps its model."""
        self._server.close()

    def __enter__(self) -> RemoteEmbedder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _probe(self, request: EmbedRequest) -> _Answer:
        """What the server says of a request's options: it embeds a word with them."""
        options = _options(request)
        key = tuple(sorted(options.items()))
        if key not in self._known:
            try:
                self._known[key] = self._ask(["a"], {**options, "truncate": True})
            except ServerRefusedError as error:
                raise _as_local(error, self._asked) from None
            self.model = self._known[key].model
        return self._known[key]

    def _stream(self, request: EmbedRequest, space: str, progress: Progress | None) -> Iterator[Embedded | TextError]:
        options = _options(request)
        n_texts = n_tokens = first_index = 0
        for texts, timing in _windows(request):
            results = self._window(texts, options, space, first_index)
            timing.done()
            first_index += len(texts)
            n_texts += len(results)
            n_tokens += sum(one.prompt_tokens for one in results if isinstance(one, Embedded))
            if progress is not None:
                progress(n_texts, n_tokens)
            yield from results

    def _window(
        self, texts: list[str], options: dict[str, Any], space: str, first_index: int
    ) -> list[Embedded | TextError]:
        """One result for each text: those that fail are left out, and the others asked for again."""
        failed: dict[int, TextError] = {}
        for place, text in enumerate(texts):
            problem = _no_text(text)
            if problem is not None:
                failed[place] = InvalidTextError(problem, first_index + place)
        while True:
            places = [place for place in range(len(texts)) if place not in failed]
            if not places:
                return [failed[place] for place in range(len(texts))]
            try:
                answer = self._ask([texts[place] for place in places], options)
            except ServerRefusedError as error:
                index = error.fields.get("index")
                if type(index) is not int or not 0 <= index < len(places):
                    raise _as_local(error, self._asked) from None
                place = places[index]
                failed[place] = TextError(str(error.fields["error"]), first_index + place)
                continue
            if answer.space != space:
                raise ServerUnreachableError(
                    f"the server's model changed: its vectors were of the space {space}, now of {answer.space}"
                )
            embedded: dict[int, Embedded | TextError] = dict(zip(places, answer.results, strict=True))
            return [(embedded | failed)[place] for place in range(len(texts))]

    def _ask(self, texts: list[str], options: dict[str, Any]) -> _Answer:
        fields = self._server.ask("POST", "/q3e/embed", {"model": self._asked, "texts": texts, **options})
        with suppress(KeyError, TypeError, ValueError):
            vectors = np.frombuffer(base64.b64decode(fields["vectors"]), "<f4").astype(np.float32)
            rows = vectors.reshape(len(texts), fields["dim"])
            columns = zip(rows, fields["prompt_tokens"], fields["truncated"], strict=True)
            results = [Embedded(row, int(tokens), bool(truncated)) for row, tokens, truncated in columns]
            return _Answer(results, fields["model"], fields["space"], rows.shape[1])
        raise ServerUnreachableError(f"the server at {self._server.name} is no q3e-local of this version")


class _Timing:
    """How large the next window is."""

    def __init__(self) -> None:
        self.n_bytes = 4 * _WINDOW_BYTES[0]
        self.started = 0.0

    def done(self) -> None:
        seconds = time.monotonic() - self.started
        if seconds < _WINDOW_S[0]:
            self.n_bytes = min(self.n_bytes * 2, _WINDOW_BYTES[1])
        elif seconds > _WINDOW_S[1]:
            self.n_bytes = max(self.n_bytes // 2, _WINDOW_BYTES[0])


def _windows(request: EmbedRequest) -> Iterator[tuple[list[str], _Timing]]:
    timing = _Timing()
    window: list[str] = []
    n_bytes = 0
    for text in request.texts:
        window.append(text)
        n_bytes += len(text.encode("utf-8", "surrogatepass"))
        if n_bytes >= timing.n_bytes or len(window) >= _WINDOW_TEXTS:
            timing.started = time.monotonic()
            yield window, timing
            window, n_bytes = [], 0
    if window:
        timing.started = time.monotonic()
        yield window, timing


def _options(request: EmbedRequest) -> dict[str, Any]:
    options = {
        "kind": request.kind,
        "task": request.task,
        "instruction": request.instruction,
        "dim": request.dim,
        "truncate": request.truncate,
        "max_tokens": request.max_tokens,
    }
    return {name: value for name, value in options.items() if value is not None}


def _no_text(text: str) -> str | None:
    """As Embedder says it: JSON could not carry such a text."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        return f"character {error.start} is the lone surrogate {text[error.start]!r}, which is no text"
    return None


def _as_local(error: ServerRefusedError, model: str) -> Q3EError:
    """The error the library would have raised here, so that exit codes are the same."""
    said = error.fields.get("error")
    text = said if isinstance(said, str) else str(error)
    if error.status == 404:
        kind = ModelNotHereError if error.fields.get("is_known") else UnknownModelError
        return kind(f"the server: {text}")
    return OptionError(text, str(error.fields.get("option", ""))) if error.status == 400 else error
