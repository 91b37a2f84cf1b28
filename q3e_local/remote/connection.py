"""The connection to a running q3e-local server: `Server`, which sends JSON and reads the answer.

Knows addresses, keys and HTTP as far as this server speaks it; nothing of texts and models.
"""

from __future__ import annotations

import json
import os
import shlex
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import httpx2

from q3e_local.errors import OptionError, Q3EError
from q3e_local.wording import address
from q3e_local.wording.address import Address

_CONNECT_S = 10.0
_ANSWER_S = 1800.0  # long texts on a slow machine, behind those of others, and a model to load first
_PATIENCE_S = 300.0  # with a server that is busy or starting again
_PAUSE_S = 1.0
_BUSY = (429, 503)
_CONNECTED = {f"connection.{step}.complete" for step in ("connect_tcp", "connect_unix_socket", "start_tls")}


class ServerUnreachableError(Q3EError):
    """Nothing answers at the address, or what answers is no q3e-local server."""


class ServerRefusedError(Q3EError):
    """The server refused; `status` is HTTP's. One that `is_busy` may be asked again after `retry_after_s` seconds."""

    def __init__(self, message: str, status: int, fields: Mapping[str, Any], retry_after_s: float = _PAUSE_S) -> None:
        super().__init__(message)
        self.status, self.fields, self.retry_after_s = status, fields, retry_after_s

    @property
    def is_busy(self) -> bool:
        """Whether too much waits there, or it starts or stops; no fault of the request's or the server's."""
        return self.status in _BUSY

    def __reduce__(self) -> tuple[Any, ...]:
        # For another process: Python would call the class with the text alone.
        return type(self), (str(self), self.status, dict(self.fields))


def server_address(option: str | None = None, environ: Mapping[str, str] | None = None) -> str:
    """The address that a command talks to: that of --server, `Q3E_SERVER`, `OLLAMA_HOST`, or the default.

    Raises OptionError where the variable names several: the command talks to one.
    """
    environ = os.environ if environ is None else environ
    of_variable = server_addresses(environ.get("Q3E_SERVER", ""))
    if not (option and address.unquoted(option)) and len(of_variable) > 1:
        raise OptionError(f"Q3E_SERVER names {len(of_variable)} servers, say which: --server {of_variable[0]}")
    for text in (option, *of_variable, environ.get("OLLAMA_HOST")):
        if text and address.unquoted(text):
            return address.unquoted(text)
    return str(Address())


def server_addresses(text: str) -> list[str]:
    """The addresses that `Q3E_SERVER` names, with commas between them."""
    return [found for part in address.unquoted(text).split(",") if (found := address.unquoted(part))]


class Cancellation:
    """Ends the requests that other threads wait for, and those that begin later, with a ServerUnreachableError."""

    def __init__(self) -> None:
        self._is_cancelled = threading.Event()
        self._lock = threading.Lock()
        self._hang_ups: list[Callable[[], None]] = []

    @property
    def is_cancelled(self) -> bool:
        """Whether `cancel` was called."""
        return self._is_cancelled.is_set()

    def cancel(self) -> None:
        """Hang up wherever a request waits."""
        with self._lock:
            self._is_cancelled.set()
            for hang_up in self._hang_ups:
                hang_up()

    def wait(self, seconds: float) -> bool:
        """Wait so long, or until `cancel` is called; whether it was."""
        return self._is_cancelled.wait(seconds)

    @contextmanager
    def calling(self, hang_up: Callable[[], None]) -> Iterator[None]:
        """Within the block, `cancel` calls `hang_up`."""
        with self._lock:
            self._hang_ups.append(hang_up)
        try:
            yield
        finally:
            with self._lock:
                self._hang_ups.remove(hang_up)


class Server:
    """A connection that stays open and serves one thread at a time.

    Addresses are read like `OLLAMA_HOST`; `unix:PATH` is a Unix socket, a number alone a port of this machine.
    Raises OptionError for what is no address.
    """

    def __init__(self, text: str, *, answer_s: float = _ANSWER_S, patience_s: float = _PATIENCE_S) -> None:
        unix = text.removeprefix("unix:") if text.startswith("unix:") else None
        # A number alone would be an IP address of one number, which nobody means.
        spelled = f":{text}" if text.isascii() and text.isdigit() else text
        self._address = Address(host="localhost") if unix is not None else address.parse(spelled).to_connect()
        if self._address.scheme not in ("http", "https"):
            raise OptionError(f"a server's address is one of http or https, or unix:PATH, got {text!r}")
        if unix is not None and not hasattr(socket, "AF_UNIX"):
            raise OptionError("Unix sockets are not supported on this system")
        self.name = text if unix is not None else str(self._address)
        self._how_to_start = _how_to_start(self._address, unix)
        self._patience_s = patience_s
        key = os.environ.get("Q3E_API_KEY", "").partition(",")[0].strip()
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        headers |= {"Authorization": f"Bearer {key}"} if key else {}
        self._has_key = bool(key)
        try:
            self._client = httpx2.Client(
                base_url=str(self._address),
                headers=httpx2.Headers(headers, encoding="latin-1"),
                timeout=httpx2.Timeout(answer_s, connect=_CONNECT_S),
                transport=httpx2.HTTPTransport(verify=_certificates(self._address.scheme), uds=unix),
                trust_env=False,  # no variable names a proxy: texts go where the address says
            )
        except httpx2.InvalidURL:
            raise OptionError(self._no_such_host()) from None
        self._is_kept = False  # a connection from an earlier request
        self._has_answered = False
        self._socket: socket.socket | None = None  # of the latest connection
        self._lock = threading.Lock()

    def ask(
        self, method: str, path: str, body: Any = None, cancellation: Cancellation | None = None
    ) -> dict[str, Any]:
        """The JSON object of the answer. Waits and asks again while the server is busy.

        Raises ServerUnreachableError or ServerRefusedError.
        """
        data = None if body is None else json.dumps(body).encode("utf-8")
        cancellation = cancellation or Cancellation()
        waited = 0.0
        while True:
            with self._lock, cancellation.calling(self._hang_up):
                answer = self._once(method, path, data, cancellation)
            pause = _retry_after_s(answer.headers.get("Retry-After", ""))
            if answer.status_code not in _BUSY or waited >= self._patience_s:
                return self._read(path, answer.status_code, answer.content, pause)
            cancellation.wait(pause)
            waited += pause

    def close(self) -> None:
        """Hang up."""
        self._client.close()

    def _once(self, method: str, path: str, data: bytes | None, cancellation: Cancellation) -> httpx2.Response:
        was_kept, self._is_kept = self._is_kept, False

        def connected(event: str, info: dict[str, Any]) -> None:
            if event in _CONNECTED:
                self._socket = info["return_value"].get_extra_info("socket")
                if cancellation.is_cancelled:  # too early: there was nothing to hang up yet
                    self._hang_up()

        if cancellation.is_cancelled:
            raise ServerUnreachableError(f"the request to {self.name} was cancelled")
        try:
            answer = self._client.request(method, path, content=data, extensions={"trace": connected})
        except httpx2.RequestError as error:
            # A kept connection may have ended meanwhile: only the failure of a new one counts.
            if was_kept and not isinstance(error, httpx2.TimeoutException):
                return self._once(method, path, data, cancellation)
            raise ServerUnreachableError(self._why(error)) from None
        self._is_kept = self._has_answered = True
        return answer

    def _hang_up(self) -> None:
        """End the connection, so that a thread that waits for an answer no longer does."""
        if self._socket is not None:
            # TLS would say good-bye first, for which the thread that waits would have to let go.
            with suppress(OSError):  # it is closed already
                socket.socket.shutdown(self._socket, socket.SHUT_RDWR)

    def _why(self, error: httpx2.RequestError) -> str:
        cause = _first_cause(error)
        if isinstance(cause, ConnectionRefusedError | FileNotFoundError):
            if self._has_answered:
                return f"the server at {self.name} stopped while it was in use; {self._how_to_start}"
            return f"no server answers at {self.name}; {self._how_to_start}"
        if isinstance(cause, socket.gaierror):
            return self._no_such_host()
        if isinstance(error, httpx2.TimeoutException):
            return f"the server at {self.name} does not answer in time"
        # The transport itself reports a connection that ended; the parser below it, what is no HTTP.
        if isinstance(error, httpx2.RemoteProtocolError) and cause is not error.__cause__:
            return f"what answers at {self.name} is no HTTP server"
        reason = cause.strerror if isinstance(cause, OSError) and cause.strerror else str(error)
        return f"the connection to {self.name} failed: {reason}"

    def _no_such_host(self) -> str:
        return f"there is no host {self._address.host!r}; is the server's address right?"

    def _read(self, path: str, status: int, content: bytes, retry_after_s: float) -> dict[str, Any]:
        try:
            fields = json.loads(content)
        except ValueError:
            fields = None
        if status == 200 and isinstance(fields, dict):
            return fields
        if status == 200 or (status in (404, 405, 501) and not isinstance(fields, dict)):
            raise ServerUnreachableError(f"the server at {self.name} is no q3e-local: it does not know {path}")
        error = fields.get("error") if isinstance(fields, dict) else None
        if isinstance(error, dict):
            error = error.get("message")
        if status == 401:
            wanted = (
                "does not accept the key in Q3E_API_KEY" if self._has_key else "wants a key; set Q3E_API_KEY to it"
            )
            error = f"the server {wanted}"
        message = f"{self.name}: {error or f'answered with status {status}'}"
        raise ServerRefusedError(message, status, fields if isinstance(fields, dict) else {}, retry_after_s)


def _how_to_start(where: Address, unix: str | None) -> str:
    """Advice for who finds no server at an address: the command whose server answers there."""
    if unix is not None:
        return f"start one with: q3e-local serve --unix-socket {shlex.quote(unix)}"
    if where.scheme == "https" or where.path:
        return "is the server behind it running?"
    port = f" --port {where.port}" if where.port != address.DEFAULT_PORT else ""
    if address.is_loopback(where.host):
        return f"start one with: q3e-local serve{port}"
    return f"start one on that machine with: q3e-local serve --host 0.0.0.0{port}"


def _certificates(scheme: str) -> ssl.SSLContext:
    """The system's certificates, to which a company may have added its own; none without TLS: loading is slow."""
    return ssl.create_default_context() if scheme == "https" else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def _first_cause(error: BaseException) -> BaseException:
    while (cause := error.__cause__ or error.__context__) is not None:
        error = cause
    return error


def _retry_after_s(text: str) -> float:
    return min(60.0, max(0.1, float(text))) if text.replace(".", "", 1).isdigit() else _PAUSE_S
