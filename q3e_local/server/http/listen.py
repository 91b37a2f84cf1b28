"""The sockets a server listens on: a host and port, or a Unix socket.

Knows the system's refusals and says them in a sentence. Where a port is taken, a request over HTTP finds out whether
q3e-local or Ollama has it: for most people that is the first error they meet, and what to do differs.
"""

from __future__ import annotations

import errno
import http.client
import os
import socket
import stat
import sys
from contextlib import closing, suppress
from pathlib import Path

from q3e_local.errors import OptionError
from q3e_local.server.errors import ServerError
from q3e_local.server.settings import ServerSettings
from q3e_local.wording.address import Address

_BUSY = {errno.EADDRINUSE, getattr(errno, "WSAEADDRINUSE", errno.EADDRINUSE)}
_ALL = "all addresses"
_ASK_S = 0.5
_FORBIDDEN = {errno.EACCES, errno.EPERM, getattr(errno, "WSAEACCES", errno.EACCES)}


class ListenError(ServerError):
    """The address cannot be had."""


def listen(settings: ServerSettings) -> list[socket.socket]:
    """Sockets that are bound and not yet listening. Raises ListenError, or OptionError for a host there is not."""
    if settings.unix_socket is not None:
        return [_unix(settings.unix_socket)]
    if not settings.host:
        return [_all_addresses(settings.port)]
    try:
        addresses = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError):
        raise OptionError(f"there is no host {settings.host!r} to listen on; choose another with --host") from None
    sockets: list[socket.socket] = []
    port = settings.port
    for family, _, _, _, where in dict.fromkeys(addresses):
        try:
            sockets.append(_bound(family, (where[0], port, *where[2:])))
        except OSError as error:
            if sockets and error.errno not in _BUSY:  # localhost without IPv6
                continue
            close(sockets, None)
            raise _refused(error, settings.host, port) from None
        port = sockets[0].getsockname()[1]  # where the system chose it: the same port for each address
    return sockets


def close_taking(sockets: list[socket.socket]) -> list[socket.socket]:
    """Close the sockets, and return the connections that no one had accepted yet, which closing would reset."""
    taken = []
    for each in sockets:
        with suppress(OSError):  # no connection waits any more
            while True:
                taken.append(each.accept()[0])
        each.close()
    return taken


def close(sockets: list[socket.socket], unix_socket: Path | None) -> None:
    """Close the sockets, and remove the Unix socket's file."""
    for each in sockets:
        each.close()
    if unix_socket is not None:
        unix_socket.unlink(missing_ok=True)


def _all_addresses(port: int) -> socket.socket:
    try:
        if socket.has_dualstack_ipv6():
            return _bound(socket.AF_INET6, ("::", port), dual=True)
        return _bound(socket.AF_INET, ("0.0.0.0", port))  # noqa: S104 - the user wants all addresses
    except OSError as error:
        raise _refused(error, _ALL, port) from None


def _bound(family: int, where: tuple[object, ...], dual: bool = False) -> socket.socket:
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        if os.name == "posix":
            # The port of a server that has just stopped is free for the next server at once.
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        elif hasattr(socket, "SO_EXCLUSIVEADDRUSE"):
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
        if family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if dual else 1)
        bound.bind(where)
        bound.setblocking(False)
    except OSError:
        bound.close()
        raise
    return bound


def _refused(error: OSError, host: str, port: int) -> ListenError:
    if error.errno in _BUSY:
        who = _who_listens("" if host == _ALL else host, port)
        if who == "q3e-local":
            return ListenError(
                f"q3e-local is already serving on port {port} of {host}; use that, or choose another with --port"
            )
        return ListenError(
            f"port {port} on {host} is taken by {who or 'another program'}; stop that, or choose another with --port"
        )
    if error.errno in _FORBIDDEN:
        return ListenError(f"port {port} on {host} may not be used by this user; choose another with --port")
    return ListenError(f"cannot listen on {host}, port {port}: {error.strerror}; choose another with --host")


def _who_listens(host: str, port: int) -> str | None:
    """`q3e-local` or `Ollama` where one of them answers, None where no program does or another each."""
    connection = http.client.HTTPConnection(Address(host=host).to_connect().host, port, timeout=_ASK_S)
    with closing(connection), suppress(OSError, http.client.HTTPException):
        connection.request("GET", "/", headers={"Connection": "close"})
        answer = connection.getresponse()
        # A q3e-local server has its name in every answer, in a refusal without a key too.
        if answer.getheader("server", "").startswith("q3e-local/"):
            return "q3e-local"
        if answer.read(100).startswith(b"Ollama is running"):
            return "Ollama"
    return None


def _unix(path: Path) -> socket.socket:
    if sys.platform == "win32" or not hasattr(socket, "AF_UNIX"):
        raise OptionError("Unix sockets are not supported on Windows; use --host and --port")
    _remove_stale(path)
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)  # for this user alone, from the first moment on
    try:
        bound.bind(str(path))
        bound.setblocking(False)
    except OSError as error:
        bound.close()
        reason = error.strerror or str(error)  # a path that is too long has no number
        raise ListenError(f"cannot make the Unix socket {path}: {reason}") from None
    finally:
        os.umask(before)
    return bound


def _remove_stale(path: Path) -> None:
    """Remove the socket file of a server that was killed.

    Raises ListenError for the socket of a server that runs, and for a file that is no socket.
    """
    try:
        mode = path.lstat().st_mode
    except OSError:
        return
    if not stat.S_ISSOCK(mode):
        raise ListenError(f"{path} is there already and no socket; choose another with --unix-socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise ListenError(f"cannot use the Unix socket {path}: {error.strerror or error}") from None
        else:
            raise ListenError(f"another server listens on {path}; stop that, or choose another with --unix-socket")
