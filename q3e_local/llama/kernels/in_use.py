"""Which kernels compute on the CPU in this process: a variant of ours that is proved sound, or llama.cpp's own.

Chooses once, and says why. Knows nothing of models, nor of what is in the library's file (compiled.py).
"""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass, replace

from q3e_local import files, machine
from q3e_local.errors import OptionError
from q3e_local.llama import binding
from q3e_local.llama.kernels import compiled
from q3e_local.llama.kernels.choice import OFF, VARIABLE, Kernels, Taken, wanted
from q3e_local.llama.kernels.compiled import DoubtError, Library
from q3e_local.wording.installing import rebuild

logger = logging.getLogger("q3e_local.llama")

# What llama.cpp's build says that it uses, beside the variant that runs where the CPU has it.
_FEATURES = {"avx2": ("AVX2", "AVX2"), "avx512": ("AVX512", "AVX-512")}

_lock = threading.Lock()
_library: Library | None = None  # that llama.cpp asks
_chosen: Kernels | None = None


def chosen() -> Kernels:
    """Who computes on the CPU, decided once in a process. Raises OptionError for a $Q3E_KERNELS that names nothing.

    A program that also computes with llama_cpp calls this first: a graph that is at work meanwhile may be computed
    half by our kernels and half by llama.cpp's.
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
        return (_library or Library(compiled.LIBRARY)).variants()
    except DoubtError:
        return {}


def use(variant: str | None) -> None:
    """Let this variant compute from now on, or llama.cpp alone: for comparing them. Nothing may compute meanwhile.

    Raises OptionError for a variant that cannot run here.
    """
    without = chosen().why
    if variant is not None:
        why = without if _library is None else _library.variants().get(variant, "it is not compiled in")
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
        is_worth_it = name == "avx2" or variant is None  # our kernels have already what AVX-512 gains
        if is_worth_it and runs.get(name, "not known") is None and feature not in features:
            ours = "; our kernels use it, but compute products and attention alone" if variant else ""
            epoch = "without SOURCE_DATE_EPOCH in the environment, " if name == "avx2" else ""
            return Lack(
                f"llama.cpp was built without {called}, which this CPU has{ours}",
                f"build llama.cpp on this machine, {epoch}by {rebuild()}",
            )
    return None


def _choose(name: str | None) -> Kernels:
    try:
        kernels = _opened(name)
        level = logging.INFO
    except DoubtError as doubt:
        kernels = Kernels(None, str(doubt), doubt.is_wrong, (doubt.faster,) if doubt.faster else ())
        level = logging.WARNING if doubt.is_wrong else logging.INFO
    if kernels.variant is None:
        logger.log(level, "llama.cpp's own kernels compute here, which are slower than ours: %s", kernels.why)
    # Switched off, perhaps because opening the library ends the process: so it is not opened.
    lack = lacking({} if name == OFF else variants(), binding.features(), kernels.variant)
    return kernels if lack is None else replace(kernels, faster=(*kernels.faster, lack.text))


def _opened(name: str | None) -> Kernels:
    """Open the library, and let this variant compute, or else the fastest that is sound. Raises DoubtError."""
    global _library
    if name == OFF:
        raise DoubtError(f"{VARIABLE}={OFF}", f"unset {VARIABLE}", is_wrong=False)
    library = Library(compiled.LIBRARY)
    runs = library.variants()
    if name is None:
        fitting = [variant for variant, why in runs.items() if why is None]
        if not fitting:
            raise DoubtError(f"none of them runs here: {list(runs.values())[-1]}", is_wrong=False)
    elif (why := runs.get(name, "it is not compiled in")) is not None:
        raise DoubtError(f"{VARIABLE}={name}, but {why}", f"unset {VARIABLE}")
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
    """The first variant whose results are llama.cpp's, and what was wrong with a faster one. Raises DoubtError."""
    try:
        from q3e_local.llama.kernels import proof, trial  # which look for functions of this build
    except AttributeError as error:
        raise DoubtError(f"they cannot be tried on this llama.cpp: {error}", rebuild()) from None
    wrong = ""
    for name in names:
        facts = (library.digest, name, binding.build(), sorted(binding.features()), machine.cpu_name())
        try:
            if not files.is_proved(*facts):
                if not trial.held(library.path, name):
                    continue
                files.note_proved(*facts)
        except proof.DisagreementError as error:
            wrong = wrong or f"{name} is not used: {error}"
            logger.warning("of our kernels %s is not used: %s", name, error)
            continue
        library.use(name)
        return name, wrong
    if wrong:
        raise DoubtError(wrong)
    raise DoubtError(f"no operation that was tried is one that {', '.join(names)} takes", is_wrong=False)
