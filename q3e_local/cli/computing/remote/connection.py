"""The connection to a running q3e-local server: `Server`, which sends JSON and reads the answer.

Knows addresses, keys and HTTP as far as this server speaks it; nothing of texts and models.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
import threading
import time
from collections.abc import Mapping
from typing import Any

from q3e_local.errors import OptionError, Q3EError
from q3e_local.wording import address
from q3e_local.wording.address import Address

_CONNECT_S = 10.0
_ANSWER_S = 1800.0  # a window of long texts on a slow machine, behind others', and a model to load first
_PATIENCE_S = 300.0  # with a server that is busy or starting again
_PAUSE_S = 1.0


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
    """A connection that is kept, and used by one thread at a time.

    Addresses are read as `OLLAMA_HOST` is; `unix:PATH` is a Unix socket, a number alone a port of this machine.
    """

    def __init__(
        self, text: str, api_key: str | None = None, *, answer_s: float = _ANSWER_S, patience_s: float = _PATIENCE_S
    ) -> None:
        self.name = text
        self._answer_s, self._patience_s = answer_s, patience_s
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
        self._lock = threading.Lock()

    def ask(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        """The JSON object answered; waits and asks again while the server is busy.

        Raises ServerUnreachableError or ServerRefusedError.
        """
        data = None if body is None else json.dumps(body).encode("utf-8")
        waited = 0.0
        while True:
            with self._lock:
                status, headers, content = self._once(method, path, data)
            if status not in (429, 503) or waited >= self._patience_s:
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
            connection.sock.settimeout(self._answer_s)
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
