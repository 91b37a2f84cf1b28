"""Our own kernels for what costs a CPU the time, called by llama.cpp in place of its own.

Finds the library, opens it beside the llama.cpp that it was written for, and lets a variant compute only after its
results were held to llama.cpp's. Knows nothing of models; where anything is amiss, llama.cpp computes as ever.
"""

from __future__ import annotations

import ctypes
import logging
import os
import sys
import threading
from collections.abc import Callable
from ctypes import c_char_p, c_int, c_int64, c_void_p
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from q3e_local.errors import OptionError
from q3e_local.llama import native, operation

logger = logging.getLogger("q3e_local.llama")

VARIABLE = "Q3E_KERNELS"
OFF = "off"
LIBRARY = Path(__file__).with_name("q3e_kernels.dylib" if sys.platform == "darwin" else "q3e_kernels.so")

# The build whose private structures kernels/ggml_layout.h describes.
_COMMIT, _VERSION = "0c1e570", "0.25.3"
_INTERFACE = 1
_DOOR = (
    "_Z39ggml_backend_cpu_get_extra_buffer_typesv",
    "ggml_barrier",
    "ggml_threadpool_chunk_set",
    "ggml_threadpool_chunk_add",
)


@dataclass(frozen=True)
class Kernels:
    """Who computes on the CPU."""

    variant: str | None  # of ours; None: llama.cpp's own kernels alone
    why: str  # they, or this variant, and not a faster one


@dataclass(frozen=True)
class Counts:
    """Operations that our kernels computed since the start of the process."""

    products: int
    attentions: int


class _Doubt(Exception):
    """Our kernels cannot be used; the text says why."""


class _Library:
    """The compiled library, open beside llama.cpp. Nothing computes with it until a variant is chosen."""

    def __init__(self, path: Path) -> None:
        _same_build()
        if not path.is_file():
            raise _Doubt("they were not compiled when q3e-local was installed: that takes a C++ compiler")
        try:
            self._lib = ctypes.CDLL(str(path))
            for name, result, *arguments in (
                ("q3e_interface", c_int),
                ("q3e_variant", c_char_p, c_int),
                ("q3e_why_not", c_char_p, c_char_p),
                ("q3e_use", c_int, c_char_p),
                ("q3e_counts", None, c_void_p),
                ("q3e_open", None, c_void_p, c_void_p, c_void_p, c_void_p),
            ):
                function = getattr(self._lib, name)
                function.restype, function.argtypes = result, arguments
        except (OSError, AttributeError) as error:
            raise _Doubt(f"{path} cannot be opened: {error}") from None
        if self._lib.q3e_interface() != _INTERFACE:
            raise _Doubt(f"{path} has interface {self._lib.q3e_interface()}, this program needs {_INTERFACE}")
        try:
            self._lib.q3e_open(*(native.address(name) for name in _DOOR))
        except AttributeError as error:
            raise _Doubt(f"this llama.cpp does not let them in: {error}") from None

    def variants(self) -> dict[str, str | None]:
        """What is compiled in, the fastest first, and why it cannot run here: None where it can."""
        found: dict[str, str | None] = {}
        while (name := self._lib.q3e_variant(len(found))) is not None:
            why = self._lib.q3e_why_not(name)
            found[name.decode()] = why and why.decode()
        return found

    def use(self, variant: str | None) -> None:
        if self._lib.q3e_use(variant and variant.encode()) != 0:
            raise _Doubt(f"{variant} cannot run on this machine")

    def counts(self) -> Counts:
        taken = (c_int64 * 2)()
        self._lib.q3e_counts(taken)
        return Counts(*taken)


_lock = threading.Lock()
_library: _Library | None = None
_chosen: Kernels | None = None


def chosen() -> Kernels:
    """Who computes on the CPU, decided once in a process. Raises OptionError for a $Q3E_KERNELS that names nothing."""
    global _chosen
    with _lock:
        if _chosen is None:
            _chosen = _choose(os.environ.get(VARIABLE, ""))
        return _chosen


def counts() -> Counts:
    """What our kernels computed so far in this process."""
    return _library.counts() if _library else Counts(0, 0)


def variants() -> dict[str, str | None]:
    """The variants that are compiled in, the fastest first, and why each cannot run here: None where it can."""
    chosen()
    return _library.variants() if _library else {}


def use(variant: str | None) -> None:
    """Let this variant compute from now on, or llama.cpp alone: for comparing them. Nothing may compute meanwhile.

    Raises OptionError for a variant that cannot run here.
    """
    why = variants().get(variant, "it is not compiled in") if variant else None
    if why is not None:
        raise OptionError(f"the {variant} kernels cannot be used: {why}")
    if _library:
        _library.use(variant)


def _choose(wanted: str) -> Kernels:
    global _library
    if wanted == OFF:
        return Kernels(None, f"{VARIABLE}={OFF}")
    try:
        library = _Library(LIBRARY)
        _library = library
        names = library.variants()
        if wanted and wanted not in names:
            raise OptionError(f"{VARIABLE} is {OFF} or one of {', '.join(names)}; got {wanted!r}")
        if wanted and names[wanted] is not None:
            raise _Doubt(f"{VARIABLE}={wanted}, but {names[wanted]}")
        fitting = [wanted] if wanted else [name for name, why in names.items() if why is None]
        if not fitting:
            raise _Doubt("; ".join(f"{name}: {why}" for name, why in names.items()))
        return _first_sound(library, fitting, f"{VARIABLE}={wanted}" if wanted else "the fastest that this CPU runs")
    except _Doubt as doubt:
        logger.warning("llama.cpp's own kernels compute here, which are slower than ours: %s", doubt)
        return Kernels(None, str(doubt))


def _first_sound(library: _Library, names: list[str], why: str) -> Kernels:
    for name in names:
        wrong = _wrong(library, name)
        if wrong is None:
            library.use(name)
            return Kernels(name, why)
        logger.warning("the %s kernels are not used: %s", name, wrong)
        why = f"{name} was not used: {wrong}"
    raise _Doubt(why)


def _same_build() -> None:
    commit, version = (
        bytes(native.function(name, c_char_p)()).decode("utf-8", "replace")
        for name in ("ggml_commit", "ggml_version")
    )
    if (commit[: len(_COMMIT)], version) != (_COMMIT, _VERSION):
        raise _Doubt(f"they were written for ggml {_VERSION} ({_COMMIT}), this llama.cpp has {version} ({commit})")


# The proof: small operations, once by llama.cpp's kernels and once by ours.

_Q4_K, _Q6_K = 12, 14
# Rounding of activations to 8 bits leaves 4e-3 of the norm; a wrong kernel leaves about 1.
_TOLERANCE = 2e-2


def _wrong(library: _Library, variant: str) -> str | None:
    """What is wrong with the results of a variant; None when they are those of llama.cpp."""
    for name, compute in _trials():
        library.use(None)
        expected = compute()
        library.use(variant)
        before = library.counts()
        found = compute()
        if library.counts() == before:
            continue  # it leaves this operation to llama.cpp
        library.use(None)
        error = float(np.linalg.norm(found - expected) / np.linalg.norm(expected))
        if not error <= _TOLERANCE:  # NaN too
            return f"{name} differs by {error:.2g} of its norm from llama.cpp's, at most {_TOLERANCE} is rounding"
    return None


def _trials() -> list[tuple[str, Callable[[], NDArray[np.float32]]]]:
    random = np.random.default_rng(0)
    weights = random.standard_normal((96, 512)).astype(np.float32)
    tokens = random.standard_normal((35, 512)).astype(np.float32)
    n_heads, n_key_heads, n_keys, width = 4, 2, 96, 128
    query = random.standard_normal((70, n_heads, width)).astype(np.float32)
    key, value = random.standard_normal((2, n_keys, n_key_heads, width)).astype(np.float16).view(np.uint8)
    seen = np.tri(70, n_keys, 20, dtype=bool)
    mask = np.where(seen, 0, -np.inf).astype(np.float16)

    def product(kind: int) -> Callable[[], NDArray[np.float32]]:
        rows = operation.quantized(weights, kind)
        return lambda: operation.product(rows, kind, tokens, n_threads=2)

    return [
        ("the product with Q4_K weights", product(_Q4_K)),
        ("the product with Q6_K weights", product(_Q6_K)),
        ("attention", lambda: operation.attention(query, key, value, operation.F16, mask, width**-0.5, n_threads=2)),
    ]
