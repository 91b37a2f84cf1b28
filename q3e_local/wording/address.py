"""Where a server listens or is to be found: `OLLAMA_HOST` and `--server` as people write them.

Arithmetic on text: opens nothing.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 11434
_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True)
class Address:
    """`host` is bare, an IPv6 one without brackets; empty means all addresses of this machine."""

    scheme: str = "http"
    host: str = DEFAULT_HOST
    port: int = DEFAULT_PORT
    path: str = ""

    def to_connect(self) -> Address:
        """The address for a client: a server that listens on all addresses answers on loopback."""
        loopback = {"": DEFAULT_HOST, "0.0.0.0": DEFAULT_HOST, "::": "::1"}  # noqa: S104 - read, not bound
        return Address(self.scheme, loopback.get(self.host, self.host), self.port, self.path)

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}{self.path}"


def parse(text: str) -> Address:
    """`[scheme://]host[:port][/path]` as Ollama reads `OLLAMA_HOST`; each part has a default.

    Never fails, as Ollama never does: a wrong port becomes the default port.
    """
    text = unquoted(text)
    scheme, separator, rest = text.partition("://")
    if not separator:
        scheme, rest = "http", text
        default_port = DEFAULT_PORT
    else:
        default_port = _PORTS.get(scheme, DEFAULT_PORT)
    host_and_port, slash, path = rest.partition("/")
    split = _split(host_and_port)
    if split is None:
        host, port = _bare(host_and_port) or DEFAULT_HOST, ""
    else:
        host, port = split
    return Address(scheme, host, _port(port, default_port), (slash + path).rstrip("/"))


def unquoted(text: str) -> str:
    """A text without the spaces and quotes that get into environment variables."""
    return text.strip().strip("\"'").strip()


def is_loopback(host: str) -> bool:
    """Whether only programs on this machine reach a server bound to `host`."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def split_host(header: str) -> str:
    """The host of a `Host` header, without port and brackets, in lower case."""
    split = _split(header)
    return (_bare(header) if split is None else split[0]).lower().rstrip(".")


def _split(text: str) -> tuple[str, str] | None:
    """Host and port, or None where there is no port: Go's net.SplitHostPort."""
    if text.startswith("["):
        host, bracket, port = text[1:].partition("]")
        return (host, port[1:]) if bracket and port.startswith(":") else None
    host, colon, port = text.partition(":")
    return (host, port) if colon and ":" not in port else None


def _bare(text: str) -> str:
    bare = text.strip("[]")
    try:
        return str(ipaddress.ip_address(bare))
    except ValueError:
        return text


def _port(text: str, default: int) -> int:
    is_number = text.isascii() and text.isdigit() and len(text) <= 9
    return int(text) if is_number and int(text) <= 65535 else default
