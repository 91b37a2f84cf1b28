"""How a process ended is said in words, with a cause and with what to do."""

from __future__ import annotations

import subprocess
import sys

import pytest

from q3e_local.wording.endings import advice, ended, manner
from q3e_local.wording.installing import rebuild


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
@pytest.mark.parametrize(
    ("code", "said", "in_a_sentence"),
    [
        (0, "exit code 0", "ended with exit code 0"),
        (7, "exit code 7", "ended with exit code 7"),
        (-6, "SIGABRT (llama.cpp stopped itself)", "was ended by SIGABRT (llama.cpp stopped itself)"),
        (-15, "SIGTERM", "was ended by SIGTERM"),
        (-99, "signal 99", "was ended by signal 99"),
        (None, "no answer", "does not answer any more"),
        (0xC0000005, "exit code 0xc0000005 (a crash in native code)", None),
    ],
)
def test_each_end_has_its_words(code, said, in_a_sentence):
    assert manner(code) == said
    assert ended(code) == (in_a_sentence or f"ended with {said}")


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_an_illegal_instruction_is_named_with_its_causes_and_a_build_without_it():
    script = "import os, signal; os.kill(os.getpid(), signal.SIGILL)"
    code = subprocess.run([sys.executable, "-c", script]).returncode
    assert manner(code).startswith(
        "SIGILL (this build of llama.cpp uses instructions that this CPU lacks or that its "
    )
    assert advice(code) == (
        f"build llama.cpp on this machine: {rebuild()}; if it was built here, put "
        "CMAKE_ARGS=-DGGML_NATIVE=OFF before that command, which leaves out AVX-512 and AMX"
    )
    assert advice(0xC000001D) == advice(code)


def test_whatever_ended_it_there_is_something_to_do():
    for code in (None, 0, 1, -6, -7, -9, -11, -99, 0xC0000409):
        assert advice(code)
    assert "memory" in advice(-9)
