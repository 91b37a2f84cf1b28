"""How a process that ran llama.cpp ended, in words: the signal, its likely cause, and what to do about it.

Knows exit codes and what they mean; starts no process. As in subprocess and multiprocessing, an exit code below 0 is
minus the number of the signal that ended the process.
"""

from __future__ import annotations

import signal

from q3e_local.wording.installing import rebuild

_REASONS = {
    "SIGKILL": "the system ran out of memory, or someone ended it",
    "SIGABRT": "llama.cpp stopped itself",
    "SIGSEGV": "a crash in native code",
    "SIGBUS": "the model's file was cut or its disk is gone",
    "SIGILL": "this build of llama.cpp uses instructions that this CPU lacks or that its compiler got wrong",
}
_ADVICE = {
    "SIGKILL": "close other programs, so that more memory is free",
    "SIGBUS": "see that the disk is there, and pull the model again",
    "SIGILL": (
        "build llama.cpp on this machine: {rebuild}; if it was built here, put CMAKE_ARGS=-DGGML_NATIVE=OFF before "
        "that command, which leaves out AVX-512 and AMX"
    ),
}
# Windows has no signals: a crash is an NTSTATUS.
_WINDOWS = {0xC0000005: "SIGSEGV", 0xC000001D: "SIGILL", 0xC0000409: "SIGABRT"}


def manner(exit_code: int | None) -> str:
    """What ended a process, such as `SIGABRT (llama.cpp stopped itself)` or `exit code 7`; None: no answer."""
    if exit_code is None:
        return "no answer"
    reason = _REASONS.get(_signal(exit_code), "")
    if exit_code < 0:
        name = _signal(exit_code) or f"signal {-exit_code}"
    else:
        name = f"exit code {exit_code:#x}" if exit_code in _WINDOWS else f"exit code {exit_code}"
    return f"{name} ({reason})" if reason else name


def ended(exit_code: int | None) -> str:
    """The same after \"the process\" in a sentence, such as `was ended by SIGKILL (...)`."""
    if exit_code is None:
        return "does not answer any more"
    return f"{'was ended by' if exit_code < 0 else 'ended with'} {manner(exit_code)}"


def advice(exit_code: int | None) -> str:
    """What a user can do about a process of llama.cpp that ended like this."""
    text = _ADVICE.get(_signal(exit_code), "build llama.cpp again on this machine: {rebuild}")
    return text.replace("{rebuild}", rebuild())


def _signal(exit_code: int | None) -> str:
    """The name of the signal, also for an NTSTATUS; empty where no signal ended the process."""
    if exit_code is None or exit_code >= 0:
        return _WINDOWS.get(exit_code or 0, "")
    return next((each.name for each in signal.Signals if each.value == -exit_code), "")
