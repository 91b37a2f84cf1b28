"""The compiled library of our kernels: its file, which must be whole and of these sources, and its functions.

Knows kernels/door.cpp, and which llama.cpp that was written for; nothing of which variant is to compute.
"""

from __future__ import annotations

import ctypes
import hashlib
import platform
import sys
from ctypes import c_char_p, c_int, c_int64, c_void_p
from pathlib import Path

from q3e_local.llama import binding
from q3e_local.llama.kernels.choice import Taken
from q3e_local.wording.installing import rebuild

# Where kernels/build.py and the wheel put it.
LIBRARY = Path(__file__).with_name("q3e_kernels.so")
# What it was compiled from, where this is a checkout.
SOURCES = Path(__file__).parents[3] / "kernels"

# The build whose private structures kernels/ggml_layout.h describes.
_COMMIT, _VERSION = "0c1e570", "0.25.3"
# Where git was missing when llama.cpp was compiled, it does not know its commit. The source of this version of the
# binding has that one and no other.
_UNKNOWN, _BINDING = "unknown", "0.3.36"
_INTERFACE = 2
_DOOR = (
    "_Z39ggml_backend_cpu_get_extra_buffer_typesv",
    "ggml_barrier",
    "ggml_threadpool_chunk_set",
    "ggml_threadpool_chunk_add",
)
_REINSTALL = "install q3e-local again"
_RECOMPILE = "run `python3 kernels/build.py`"


class DoubtError(Exception):
    """Our kernels cannot be used; the text says why, `faster` what to do about it."""

    def __init__(self, why: str, faster: str = "", *, is_wrong: bool = True) -> None:
        super().__init__(why)
        self.faster, self.is_wrong = faster, is_wrong


class Library:
    """The compiled library. Nothing computes with it until it is let into llama.cpp and a variant is chosen."""

    def __init__(self, path: Path) -> None:
        self.path, self.digest = path, _checked_digest(path)
        try:
            self._lib = ctypes.CDLL(str(path))
            for name, result, *arguments in (
                ("q3e_interface", c_int),
                ("q3e_variant", c_char_p, c_int),
                ("q3e_why_not", c_char_p, c_char_p),
                ("q3e_use", c_int, c_char_p),
                ("q3e_try", c_int, c_char_p),
                ("q3e_counts", None, c_void_p),
                ("q3e_open", None, c_void_p, c_void_p, c_void_p, c_void_p),
            ):
                function = getattr(self._lib, name)
                function.restype, function.argtypes = result, arguments
                if name == "q3e_interface" and function() != _INTERFACE:
                    raise DoubtError(f"{path.name} has interface {function()}, not {_INTERFACE}", _REINSTALL)
        except (OSError, AttributeError) as error:
            # A server shows the reason to its clients, who need not learn the folders of this machine.
            reason = str(error).replace(str(path), path.name)
            raise DoubtError(f"{path.name} cannot be opened: {reason}", _REINSTALL) from None

    def let_in(self) -> None:
        """Have llama.cpp ask this library about each operation."""
        _check_build()
        try:
            self._lib.q3e_open(*(binding.address(name) for name in _DOOR))
        except AttributeError as error:
            raise DoubtError(f"this llama.cpp does not let them in: {error}", rebuild()) from None

    def variants(self) -> dict[str, str | None]:
        """What is compiled in, the fastest first, and why it cannot run here: None where it can."""
        reasons: dict[str, str | None] = {}
        while (name := self._lib.q3e_variant(len(reasons))) is not None:
            why = self._lib.q3e_why_not(name)
            reasons[name.decode()] = why and why.decode()
        return reasons

    def use(self, variant: str | None) -> None:
        """Let this variant compute, or llama.cpp alone. No graph may be computed meanwhile."""
        if self._lib.q3e_use(variant and variant.encode()) != 0:
            raise DoubtError(f"{variant} cannot run on this machine")

    def attempt(self, variant: str | None) -> None:
        """Let this variant compute the operations that `operation.ON_TRIAL` names, and no other."""
        if self._lib.q3e_try(variant and variant.encode()) != 0:
            raise DoubtError(f"{variant} cannot run on this machine")

    def counts(self) -> Taken:
        taken = (c_int64 * 2)()
        self._lib.q3e_counts(taken)
        return Taken(*taken)


def _checked_digest(path: Path) -> str:
    """The SHA-256 of a library's file. Raises DoubtError for one that is not whole, or out of date.

    The system's loader does not look: it maps the file, and a part that is not there ends the process with SIGBUS
    when it is touched. So kernels/build.py puts a SHA-256 behind the library, and one of the sources before it: after
    a `git pull` the number of the interface may be the same.
    """
    if sys.platform == "win32":
        raise DoubtError("the way into llama.cpp that they use is closed on Windows", is_wrong=False)
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        if platform.machine().lower() not in ("x86_64", "amd64"):
            raise DoubtError(f"there are none for a {platform.machine()} CPU", is_wrong=False) from None
        raise DoubtError(
            "they were not compiled when q3e-local was installed",
            f"install a C++ compiler, such as g++, and {_REINSTALL}",
            is_wrong=False,
        ) from None
    except OSError as error:
        raise DoubtError(f"{path.name} cannot be read: {error.strerror}", _REINSTALL) from None
    n_digest = hashlib.sha256().digest_size
    if hashlib.sha256(content[:-n_digest]).digest() != content[-n_digest:]:
        raise DoubtError(f"{path.name} is damaged, or none that kernels/build.py made", _REINSTALL)
    if (SOURCES / "door.cpp").is_file() and content[-2 * n_digest : -n_digest] != _digest_of_sources():
        raise DoubtError(f"{path.name} was compiled from other sources than those that are here", _RECOMPILE)
    return content[-n_digest:].hex()


def _digest_of_sources() -> bytes:
    """What kernels/build.py puts behind a library that it compiles now."""
    files = sorted(file for file in SOURCES.iterdir() if file.suffix in (".cpp", ".h", ".py"))
    return hashlib.sha256(b"".join(file.name.encode() + b"\0" + file.read_bytes() for file in files)).digest()


def _check_build() -> None:
    """Raise DoubtError where llama.cpp is not the one whose structures the library reads."""
    try:
        commit, version = (
            bytes(binding.function(name, c_char_p)()).decode("utf-8", "replace")
            for name in ("ggml_commit", "ggml_version")
        )
    except AttributeError:
        commit = version = "none"
    is_right = commit.startswith(_COMMIT) or (commit == _UNKNOWN and binding.version() == _BINDING)
    if not is_right or version != _VERSION:
        raise DoubtError(
            f"they were written for ggml {_VERSION} ({_COMMIT}), this llama.cpp has {version} ({commit})", rebuild()
        )
