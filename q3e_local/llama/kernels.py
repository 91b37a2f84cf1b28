"""Our own kernels for what costs a CPU the time, called by llama.cpp in place of its own.

Finds the library, opens it beside the llama.cpp that it was written for, and lets a variant compute only after its
results were held to llama.cpp's. Knows nothing of models; where anything is amiss, llama.cpp computes as ever.
"""

from __future__ import annotations

import ctypes
import hashlib
import logging
import platform
import sys
import threading
from ctypes import c_char_p, c_int, c_int64, c_void_p
from dataclasses import dataclass, replace
from pathlib import Path

from q3e_local import machine
from q3e_local.endings import REBUILD
from q3e_local.errors import OptionError
from q3e_local.kernel_choice import OFF, VARIABLE, Kernels, Taken, wanted
from q3e_local.llama import native, proof

logger = logging.getLogger("q3e_local.llama")

LIBRARY = Path(__file__).with_name("q3e_kernels.so")
# What it was compiled from, where this is a checkout.
SOURCES = Path(__file__).parents[2] / "kernels"

# The build whose private structures kernels/ggml_layout.h describes.
_COMMIT, _VERSION = "0c1e570", "0.25.3"
_INTERFACE = 2
_DOOR = (
    "_Z39ggml_backend_cpu_get_extra_buffer_typesv",
    "ggml_barrier",
    "ggml_threadpool_chunk_set",
    "ggml_threadpool_chunk_add",
)
_REINSTALL = "install q3e-local again"
_RECOMPILE = "run `python3 kernels/build.py`"
# What llama.cpp's build says that it uses, beside the variant that runs where the CPU has it.
_FEATURES = {"avx2": ("AVX2", "AVX2"), "avx512": ("AVX512", "AVX-512")}


class _DoubtError(Exception):
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
                    raise _DoubtError(f"{path.name} has interface {function()}, not {_INTERFACE}", _REINSTALL)
        except (OSError, AttributeError) as error:
            # Where it lies is nobody's business but this machine's: a server says the reason to its clients.
            said = str(error).replace(str(path), path.name)
            raise _DoubtError(f"{path.name} cannot be opened: {said}", _REINSTALL) from None

    def let_in(self) -> None:
        """Have llama.cpp ask this library about each operation."""
        _check_build()
        try:
            self._lib.q3e_open(*(native.address(name) for name in _DOOR))
        except AttributeError as error:
            raise _DoubtError(f"this llama.cpp does not let them in: {error}", REBUILD) from None

    def variants(self) -> dict[str, str | None]:
        """What is compiled in, the fastest first, and why it cannot run here: None where it can."""
        found: dict[str, str | None] = {}
        while (name := self._lib.q3e_variant(len(found))) is not None:
            why = self._lib.q3e_why_not(name)
            found[name.decode()] = why and why.decode()
        return found

    def use(self, variant: str | None) -> None:
        """Let this variant compute, or llama.cpp alone. No graph may be computed meanwhile."""
        if self._lib.q3e_use(variant and variant.encode()) != 0:
            raise _DoubtError(f"{variant} cannot run on this machine")

    def attempt(self, variant: str | None) -> None:
        """Let this variant compute the operations that `operation.ON_TRIAL` names, and no other."""
        if self._lib.q3e_try(variant and variant.encode()) != 0:
            raise _DoubtError(f"{variant} cannot run on this machine")

    def counts(self) -> Taken:
        taken = (c_int64 * 2)()
        self._lib.q3e_counts(taken)
        return Taken(*taken)


_lock = threading.Lock()
_library: Library | None = None  # that llama.cpp asks
_chosen: Kernels | None = None


def chosen() -> Kernels:
    """Who computes on the CPU, decided once in a process. Raises OptionError for a $Q3E_KERNELS that names nothing.

    A program that computes with llama_cpp itself calls this before: a graph that is at work meanwhile may be computed
    half by one and half by the other.
    """
    global _chosen
    with _lock:
        if _chosen is None:
            _chosen = _choose(wanted())
        return _chosen


def counts() -> Taken:
    """What our kernels computed so far in this process."""
    return _library.counts() if _library else Taken()


def variants() -> dict[str, str | None]:
    """The variants that are compiled in, the fastest first, and why each cannot run here: None where it can."""
    try:
        return (_library or Library(LIBRARY)).variants()
    except _DoubtError:
        return {}


def use(variant: str | None) -> None:
    """Let this variant compute from now on, or llama.cpp alone: for comparing them. Nothing may compute meanwhile.

    Raises OptionError for a variant that cannot run here.
    """
    without = chosen().why
    if _library is None:
        why: str | None = None if variant is None else without
    else:
        why = None if variant is None else _library.variants().get(variant, "it is not compiled in")
    if why is not None:
        raise OptionError(f"the {variant} kernels cannot be used: {why}")
    if _library is not None:
        _library.use(variant)


@dataclass(frozen=True)
class Lack:
    """What llama.cpp's build leaves unused of this CPU, and what to do."""

    what: str
    advice: str

    @property
    def text(self) -> str:
        return f"{self.advice}, as {self.what}"


def lacking(runs: dict[str, str | None], features: frozenset[str], variant: str | None) -> Lack | None:
    """What a build with these features leaves unused of a CPU that `runs` these variants, if it is worth anything."""
    for name, (feature, called) in _FEATURES.items():
        # What AVX-512 is worth, our kernels have already.
        is_worth_it = name == "avx2" or variant is None
        if is_worth_it and runs.get(name, "not known") is None and feature not in features:
            ours = "; our kernels use it, but compute products and attention alone" if variant else ""
            epoch = "without SOURCE_DATE_EPOCH in the environment, " if name == "avx2" else ""
            return Lack(
                f"llama.cpp was built without {called}, which this CPU has{ours}",
                f"build llama.cpp on this machine, {epoch}by {REBUILD}",
            )
    return None


def _choose(name: str | None) -> Kernels:
    try:
        kernels = _opened(name)
        level = logging.INFO
    except _DoubtError as doubt:
        kernels = Kernels(None, str(doubt), doubt.is_wrong, (doubt.faster,) if doubt.faster else ())
        level = logging.WARNING if doubt.is_wrong else logging.INFO
    if kernels.variant is None:
        logger.log(level, "llama.cpp's own kernels compute here, which are slower than ours: %s", kernels.why)
    # Who switches them off may do it because opening the library ends the process.
    lack = lacking({} if name == OFF else variants(), native.features(), kernels.variant)
    return kernels if lack is None else replace(kernels, faster=(*kernels.faster, lack.text))


def _opened(name: str | None) -> Kernels:
    """Opens the library, and lets this variant compute, or the fastest that is sound. Raises _DoubtError."""
    global _library
    if name == OFF:
        raise _DoubtError(f"{VARIABLE}={OFF}", f"unset {VARIABLE}", is_wrong=False)
    library = Library(LIBRARY)
    runs = library.variants()
    if name is None:
        fitting = [one for one, why in runs.items() if why is None]
        if not fitting:
            raise _DoubtError(f"none of them runs here: {list(runs.values())[-1]}", is_wrong=False)
    elif (why := runs.get(name, "it is not compiled in")) is not None:
        raise _DoubtError(f"{VARIABLE}={name}, but {why}", f"unset {VARIABLE}")
    else:
        fitting = [name]
    library.let_in()
    _library = library
    variant, why = _first_sound(library, fitting)
    if name is not None:
        fastest = next(one for one, why_not in runs.items() if why_not is None)
        faster = () if name == fastest else (f"unset {VARIABLE}: this CPU runs {fastest} too",)
        return Kernels(variant, f"{VARIABLE}={name}", faster=faster)
    return Kernels(variant, why or "the fastest that this CPU runs", is_wrong=bool(why))


def _first_sound(library: Library, names: list[str]) -> tuple[str, str]:
    """The first variant whose results are llama.cpp's, and what was wrong with a faster one. Raises _DoubtError."""
    try:
        from q3e_local.llama import kernel_proof, kernel_trial  # which look for functions of this very build
    except AttributeError as error:
        raise _DoubtError(f"they cannot be tried on this llama.cpp: {error}", REBUILD) from None
    wrong = ""
    for name in names:
        facts = (library.digest, name, native.build(), sorted(native.features()), machine.cpu_name())
        try:
            if not proof.is_known(*facts):
                if not kernel_trial.held(library.path, name):
                    continue
                proof.remember(*facts)
        except kernel_proof.DisagreementError as error:
            wrong = wrong or f"{name} is not used: {error}"
            logger.warning("of our kernels %s is not used: %s", name, error)
            continue
        library.use(name)
        return name, wrong
    if wrong:
        raise _DoubtError(wrong)
    raise _DoubtError(f"no operation that was tried is one that {', '.join(names)} takes", is_wrong=False)


def _checked_digest(path: Path) -> str:
    """The SHA-256 of a library's file. Raises _DoubtError for one that is not whole, or out of date.

    The system's loader does not look: it maps the file, and a part that is not there ends the process with SIGBUS
    when it is touched. So kernels/build.py puts a SHA-256 behind the library, and one of the sources before it: after
    a `git pull` the number of the interface may be the same.
    """
    if sys.platform == "win32":
        raise _DoubtError("the way into llama.cpp that they use is closed on Windows", is_wrong=False)
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        if platform.machine().lower() not in ("x86_64", "amd64"):
            raise _DoubtError(f"there are none for a {platform.machine()} CPU", is_wrong=False) from None
        raise _DoubtError(
            "they were not compiled when q3e-local was installed",
            f"install a C++ compiler, such as g++, and {_REINSTALL}",
            is_wrong=False,
        ) from None
    except OSError as error:
        raise _DoubtError(f"{path.name} cannot be read: {error.strerror}", _REINSTALL) from None
    n_digest = hashlib.sha256().digest_size
    if hashlib.sha256(content[:-n_digest]).digest() != content[-n_digest:]:
        raise _DoubtError(f"{path.name} is damaged, or none that kernels/build.py made", _REINSTALL)
    if (SOURCES / "door.cpp").is_file() and content[-2 * n_digest : -n_digest] != _digest_of_sources():
        raise _DoubtError(f"{path.name} was compiled from other sources than those that are here", _RECOMPILE)
    return content[-n_digest:].hex()


def _digest_of_sources() -> bytes:
    """What kernels/build.py puts behind a library that it compiles now."""
    files = sorted(one for one in SOURCES.iterdir() if one.suffix in (".cpp", ".h", ".py"))
    return hashlib.sha256(b"".join(one.name.encode() + b"\0" + one.read_bytes() for one in files)).digest()


def _check_build() -> None:
    """Raise _DoubtError where llama.cpp is not the one whose structures the library reads."""
    try:
        commit, version = (
            bytes(native.function(name, c_char_p)()).decode("utf-8", "replace")
            for name in ("ggml_commit", "ggml_version")
        )
    except AttributeError:
        commit = version = "none"
    if (commit[: len(_COMMIT)], version) != (_COMMIT, _VERSION):
        raise _DoubtError(
            f"they were written for ggml {_VERSION} ({_COMMIT}), this llama.cpp has {version} ({commit})", REBUILD
        )
