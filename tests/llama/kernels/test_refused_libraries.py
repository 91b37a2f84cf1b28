"""Kernels that cannot be used: the program works without them, and says why and what to do."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from command import run
from kernel_library import RIGHT, compiled, sealed, with_variants

from q3e_local.errors import OptionError
from q3e_local.llama import binding
from q3e_local.llama.engine import LlamaEngine
from q3e_local.llama.kernels import compiled as library
from q3e_local.llama.kernels import in_use
from q3e_local.llama.kernels.choice import Kernels, Taken
from q3e_local.models.catalog import models_folder

DEMO = models_folder() / "demo.gguf"

posix = pytest.mark.skipif(sys.platform == "win32", reason="the door is closed on Windows")


@pytest.fixture(autouse=True)
def _undecided(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a process that has not chosen: a library is opened once in a process, so that no call undoes it."""
    monkeypatch.setattr(in_use, "_chosen", None)
    monkeypatch.setattr(in_use, "_library", None)


def refused(monkeypatch: pytest.MonkeyPatch, path: Path) -> Kernels:
    """What is chosen with this library, which must not be a variant; the program computes all the same."""
    monkeypatch.setattr(library, "LIBRARY", path)
    chosen = in_use.chosen()
    assert chosen.variant is None
    assert in_use.counts() == Taken()
    with LlamaEngine(DEMO) as engine:
        assert engine.kernels is chosen
        assert np.isfinite(engine.decode([[1, 2, 3, engine.eos_id]])).all()
    return chosen


@posix
def test_a_library_that_is_not_there(monkeypatch, tmp_path, caplog):
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    chosen = refused(monkeypatch, tmp_path / "q3e_kernels.so")
    assert chosen.why == "they were not compiled when q3e-local was installed"
    assert chosen.faster[0] == "install a C++ compiler, such as g++, and install q3e-local again"
    assert not chosen.is_wrong
    # It is no news to whoever installed it so, so that no command warns of it.
    assert [record for record in caplog.records if record.levelname == "WARNING"] == []


@posix
def test_a_cpu_that_there_are_none_for(monkeypatch, tmp_path):
    monkeypatch.setattr("platform.machine", lambda: "riscv64")
    assert refused(monkeypatch, tmp_path / "none") == Kernels(None, "there are none for a riscv64 CPU")


def test_windows_is_not_even_tried(monkeypatch):
    monkeypatch.setattr(library.sys, "platform", "win32")
    chosen = in_use.chosen()
    assert chosen == Kernels(None, "the way into llama.cpp that they use is closed on Windows")


def another_library() -> bytes:
    import _json

    return Path(_json.__file__).read_bytes()


def with_a_wrong_bit(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "half of it": lambda content: content[: len(content) // 2],
    "a byte is missing": lambda content: content[:-1],
    "the header alone": lambda content: content[:64],
    "empty": lambda content: b"",
    # As a file is after the machine lost its power while it was written.
    "its end is zeros": lambda content: content[: len(content) // 2] + bytes(len(content) - len(content) // 2),
    "a bit is wrong": with_a_wrong_bit,
    "random bytes": lambda content: random.Random(0).randbytes(len(content)),
    "not of build.py": lambda content: content[:-32],
    "another library": lambda content: another_library(),
}


@posix
@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_library_is_not_opened(monkeypatch, tmp_path, caplog, damage):
    path = tmp_path / "q3e_kernels.so"
    path.write_bytes(damage(compiled().read_bytes()))
    monkeypatch.setattr(library.ctypes, "CDLL", lambda path: pytest.fail("it was opened"))
    chosen = refused(monkeypatch, path)
    assert chosen.is_wrong
    assert chosen.why == "q3e_kernels.so is damaged, or none that kernels/build.py made"
    assert chosen.faster[0] == "install q3e-local again"
    (warning,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert warning == f"llama.cpp's own kernels compute here, which are slower than ours: {chosen.why}"


@posix
def test_a_folder_in_its_place(monkeypatch, tmp_path):
    assert refused(monkeypatch, tmp_path).why.endswith("cannot be read: Is a directory")


@posix
def test_a_library_for_another_cpu(monkeypatch, tmp_path):
    content = bytearray(compiled().read_bytes()[:-32])
    content[18:20] = (0xB7, 0)  # of an ELF file: AArch64
    chosen = refused(monkeypatch, sealed(tmp_path / "q3e_kernels.so", bytes(content)))
    assert chosen.is_wrong
    assert chosen.why.startswith("q3e_kernels.so cannot be opened: ")
    assert str(tmp_path) not in chosen.why  # a server tells it to its clients


@posix
def test_a_library_with_other_functions(monkeypatch, tmp_path):
    chosen = refused(monkeypatch, sealed(tmp_path / "q3e_kernels.so", another_library()))
    assert chosen.is_wrong
    assert "q3e_interface" in chosen.why


@posix
def test_a_library_with_another_interface(monkeypatch, tmp_path):
    path = with_variants(tmp_path / "q3e_kernels.so", interface=99, avx2=(RIGHT, None))
    chosen = refused(monkeypatch, path)
    assert chosen.is_wrong
    assert chosen.why == f"q3e_kernels.so has interface 99, not {library._INTERFACE}"


@posix
@pytest.mark.parametrize(("name", "value"), [("_COMMIT", "1234567"), ("_VERSION", "0.99.0")])
def test_another_llama_cpp(monkeypatch, name, value):
    monkeypatch.setattr(library, name, value)  # a single build of llama.cpp is here
    chosen = refused(monkeypatch, compiled())
    assert chosen.is_wrong
    assert value in chosen.why
    assert "this llama.cpp has 0.25.3 (0c1e570" in chosen.why
    assert "llama-cpp-python==0.3.36" in chosen.faster[0]


@posix
@pytest.mark.parametrize(("version", "is_right"), [("0.3.36", True), ("0.3.37", False)])
def test_a_llama_cpp_that_was_compiled_without_git_is_known_by_the_bindings_version(monkeypatch, version, is_right):
    look = binding.function

    def nameless(name: str, *types: object) -> object:
        return (lambda: b"unknown") if name == "ggml_commit" else look(name, *types)

    monkeypatch.setattr(binding, "function", nameless)
    monkeypatch.setattr(binding, "version", lambda: version)
    monkeypatch.setattr(library, "LIBRARY", compiled())
    assert ("this llama.cpp has 0.25.3 (unknown)" in in_use.chosen().why) != is_right


@posix
@pytest.mark.parametrize("missing", ["ggml_commit", "_Z39ggml_backend_cpu_get_extra_buffer_typesv", "ggml_barrier"])
def test_a_llama_cpp_without_a_function(monkeypatch, missing):
    def without(look: Callable[..., object]) -> Callable[..., object]:
        return lambda name, *types: look("there is no such function" if name == missing else name, *types)

    monkeypatch.setattr(binding, "function", without(binding.function))
    monkeypatch.setattr(binding, "address", without(binding.address))
    assert refused(monkeypatch, compiled()).is_wrong


def test_off_opens_nothing(monkeypatch):
    """Where opening the library ended the process, this helps."""
    monkeypatch.setenv("Q3E_KERNELS", "off")
    monkeypatch.setattr(in_use, "Library", lambda path: pytest.fail("it was opened"))
    assert refused(monkeypatch, library.LIBRARY).why == "Q3E_KERNELS=off"


@pytest.mark.parametrize("value", ["sse", "AVX2", "0", " "])
def test_another_name_is_refused_with_the_choices(monkeypatch, value):
    monkeypatch.setenv("Q3E_KERNELS", value)
    said = f"Q3E_KERNELS must be off or one of amx, avx512, avxvnni, avx2, got {value!r}"
    with pytest.raises(OptionError, match="^" + said.replace(".", r"\.") + "$"):
        LlamaEngine(DEMO)
    for command in (["embed", "--text", "a", "-m", "demo"], ["serve", "--port", 0], ["bench", "-m", "demo"]):
        result = run(*command)
        assert (result.exit_code, result.stdout) == (2, "")
        assert result.stderr.splitlines()[-1] == f"Error: {said}"
    assert in_use._chosen is None  # so that the next load reads the variable again
    monkeypatch.setenv("Q3E_KERNELS", "")
    LlamaEngine(DEMO).close()
