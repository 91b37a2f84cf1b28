"""Our kernels are used where they are sound, and nowhere else: the program works in any case, and says why not."""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import run
from kernel_library import CRASH, NAN, NOTHING, RIGHT, WRONG, chosen_in, compiled, program, sealed, with_variants

from q3e_local.errors import OptionError
from q3e_local.llama import binding
from q3e_local.llama.engine import LlamaEngine
from q3e_local.llama.kernels import choice, in_use
from q3e_local.llama.kernels import compiled as library
from q3e_local.llama.kernels.choice import Kernels, Taken
from q3e_local.models.catalog import models_folder

DEMO = models_folder() / "demo.gguf"

posix = pytest.mark.skipif(sys.platform == "win32", reason="the door is closed on Windows")


@pytest.fixture
def undecided(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a process that has not chosen yet."""
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


@pytest.fixture(scope="module")
def without() -> dict[str, Any]:
    """What a program does with Q3E_KERNELS=off."""
    return chosen_in("", Q3E_KERNELS="off")


# What is found


def test_the_compiled_library_is_sound_here() -> None:
    compiled()
    # A compiler may have been unable to do some.
    assert list(in_use.variants()) == [name for name in choice.VARIANTS if name in in_use.variants()]
    runs = [name for name, why in in_use.variants().items() if why is None]
    chosen = in_use.chosen()
    assert not chosen.is_wrong
    if runs:
        assert (chosen.variant, chosen.why) == (runs[0], "the fastest that this CPU runs")


@posix
@pytest.mark.usefixtures("undecided")
def test_a_library_that_is_not_there(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    chosen = refused(monkeypatch, tmp_path / "q3e_kernels.so")
    assert chosen.why == "they were not compiled when q3e-local was installed"
    assert chosen.faster[0] == "install a C++ compiler, such as g++, and install q3e-local again"
    assert not chosen.is_wrong
    # It is no news to whoever installed it so, so that no command warns of it.
    assert [record for record in caplog.records if record.levelname == "WARNING"] == []


@posix
@pytest.mark.usefixtures("undecided")
def test_a_cpu_that_there_are_none_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("platform.machine", lambda: "riscv64")
    assert refused(monkeypatch, tmp_path / "none") == Kernels(None, "there are none for a riscv64 CPU")


@pytest.mark.usefixtures("undecided")
def test_windows_is_not_even_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library.sys, "platform", "win32")
    chosen = in_use.chosen()
    assert chosen == Kernels(None, "the way into llama.cpp that they use is closed on Windows")


def cut(content: bytes) -> bytes:
    return content[: len(content) // 2]


def cut_by_a_byte(content: bytes) -> bytes:
    return content[:-1]


def header_alone(content: bytes) -> bytes:
    return content[:64]


def empty(content: bytes) -> bytes:
    return b""


def end_is_zeros(content: bytes) -> bytes:
    """As a file is after the machine lost its power while it was written."""
    return content[: len(content) // 2] + bytes(len(content) - len(content) // 2)


def a_bit_is_wrong(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


def random_bytes(content: bytes) -> bytes:
    return random.Random(0).randbytes(len(content))


def not_of_build_py(content: bytes) -> bytes:
    return content[:-32]


def another_library(content: bytes) -> bytes:
    import _json

    return Path(_json.__file__).read_bytes()


DAMAGES = [
    cut, cut_by_a_byte, header_alone, empty, end_is_zeros, a_bit_is_wrong, random_bytes, not_of_build_py,
    another_library,
]  # fmt: skip


@posix
@pytest.mark.usefixtures("undecided")
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_library_is_not_opened(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    damage: Callable[[bytes], bytes],
) -> None:
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
@pytest.mark.usefixtures("undecided")
def test_a_folder_in_its_place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert refused(monkeypatch, tmp_path).why.endswith("cannot be read: Is a directory")


@posix
@pytest.mark.usefixtures("undecided")
def test_a_library_for_another_cpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    content = bytearray(compiled().read_bytes()[:-32])
    content[18:20] = (0xB7, 0)  # of an ELF file: AArch64
    chosen = refused(monkeypatch, sealed(tmp_path / "q3e_kernels.so", bytes(content)))
    assert chosen.is_wrong
    assert chosen.why.startswith("q3e_kernels.so cannot be opened: ")
    assert str(tmp_path) not in chosen.why  # a server tells it to its clients


@posix
@pytest.mark.usefixtures("undecided")
def test_a_library_with_other_functions(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    chosen = refused(monkeypatch, sealed(tmp_path / "q3e_kernels.so", another_library(b"")))
    assert chosen.is_wrong
    assert "q3e_interface" in chosen.why


@posix
@pytest.mark.usefixtures("undecided")
def test_a_library_with_another_interface(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = with_variants(tmp_path / "q3e_kernels.so", interface=99, avx2=(RIGHT, None))
    chosen = refused(monkeypatch, path)
    assert chosen.is_wrong
    assert chosen.why == f"q3e_kernels.so has interface 99, not {library._INTERFACE}"


@posix
@pytest.mark.usefixtures("undecided")
@pytest.mark.parametrize(("name", "value"), [("_COMMIT", "1234567"), ("_VERSION", "0.99.0")])
def test_another_llama_cpp(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setattr(library, name, value)
    chosen = refused(monkeypatch, compiled())
    assert chosen.is_wrong
    assert value in chosen.why
    assert "this llama.cpp has 0.25.3 (0c1e570" in chosen.why
    assert "llama-cpp-python==0.3.36" in chosen.faster[0]


@posix
@pytest.mark.usefixtures("undecided")
@pytest.mark.parametrize("missing", ["ggml_commit", "_Z39ggml_backend_cpu_get_extra_buffer_typesv", "ggml_barrier"])
def test_a_llama_cpp_without_a_function(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    def without(look: Callable[..., object]) -> Callable[..., object]:
        return lambda name, *types: look("there is no such function" if name == missing else name, *types)

    monkeypatch.setattr(binding, "function", without(binding.function))
    monkeypatch.setattr(binding, "address", without(binding.address))
    assert refused(monkeypatch, compiled()).is_wrong


# What is proved


LIBRARIES = {
    "a sound one": (
        {"amx": (RIGHT, "the CPU has no AMX"), "avx2": (RIGHT, None)},
        ("avx2", False, "the fastest that this CPU runs"),
    ),
    "one that takes nothing is passed over": (
        {"amx": (NOTHING, None), "avx512": (RIGHT, None), "avx2": (RIGHT, None)},
        ("avx512", False, "the fastest that this CPU runs"),
    ),
    "a wrong number in 72": (
        {"amx": (WRONG, None), "avx512": (NOTHING, None), "avxvnni": (NAN, None), "avx2": (RIGHT, None)},
        ("avx2", True, "amx is not used: the product with F32 weights differs from llama.cpp's by "),
    ),
    "one ends the process": (
        {"amx": (CRASH, None), "avx512": (RIGHT, None)},
        ("avx512", True, "amx is not used: the process that tried it was ended by SIG"),
    ),
    "all are wrong": (
        dict.fromkeys(choice.VARIANTS, (NAN, None)),
        (None, True, "amx is not used: the product with F32 weights differs from llama.cpp's by nan"),
    ),
    "all take nothing": (
        {},
        (None, False, "no operation that was tried is one that amx, avx512, avxvnni, avx2 takes"),
    ),
    "none runs": (
        dict.fromkeys(choice.VARIANTS, (RIGHT, "the CPU has no AVX2")),
        (None, False, "none of them runs here: the CPU has no AVX2"),
    ),
}


@posix
def test_a_variant_is_proved_once_on_a_machine(tmp_path: Path) -> None:
    others = dict.fromkeys(("amx", "avx512", "avxvnni"), (RIGHT, "the CPU has none"))
    path = with_variants(tmp_path / "q3e_kernels.so", **others, avx2=(RIGHT, None))
    no_python = "import sys; sys.executable = '/nowhere/python'"
    home = str(tmp_path / "home")
    assert chosen_in(path, no_python, Q3E_HOME=home)["chosen"]["why"].startswith(
        "avx2 is not used: it cannot be tried"
    )
    assert chosen_in(path, Q3E_HOME=home)["chosen"]["variant"] == "avx2"
    assert chosen_in(path, no_python, Q3E_HOME=home)["chosen"]["variant"] == "avx2"
    other = with_variants(tmp_path / "other.so", **others, avx2=(WRONG, None))
    assert chosen_in(other, Q3E_HOME=home)["chosen"]["variant"] is None


@posix
@pytest.mark.parametrize("name", LIBRARIES)
def test_the_first_variant_that_is_proved_computes(tmp_path: Path, without: dict[str, Any], name: str) -> None:
    variants, (variant, is_wrong, why) = LIBRARIES[name]
    path = with_variants(tmp_path / "q3e_kernels.so", **variants)
    found = chosen_in(path)
    assert (found["chosen"]["variant"], found["chosen"]["is_wrong"]) == (variant, is_wrong)
    assert found["chosen"]["why"].startswith(why)
    assert bool(found["logged"]) == (variant is None or is_wrong)
    assert any(line.startswith("WARNING") for line in found["logged"]) == is_wrong
    # The proof is of another process, and the demo has no float32 weights.
    assert found["taken"] == {"products": 0, "attentions": 0}
    assert np.allclose(found["vectors"], without["vectors"], atol=1e-6)


# What is asked for


def test_off(without: dict[str, Any]) -> None:
    found = without
    assert (found["chosen"]["variant"], found["chosen"]["why"]) == (None, "Q3E_KERNELS=off")
    assert found["chosen"]["faster"][0] == "unset Q3E_KERNELS"
    assert found["taken"] == {"products": 0, "attentions": 0}
    assert not any(line.startswith("WARNING") for line in found["logged"])


@pytest.mark.usefixtures("undecided")
def test_off_opens_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where opening the library ended the process, this helps."""
    monkeypatch.setenv("Q3E_KERNELS", "off")
    monkeypatch.setattr(in_use, "Library", lambda path: pytest.fail("it was opened"))
    assert refused(monkeypatch, library.LIBRARY).why == "Q3E_KERNELS=off"


@posix
@pytest.mark.parametrize("name", choice.VARIANTS)
def test_a_variant_by_its_name(name: str) -> None:
    compiled()
    why_not = in_use.variants().get(name, "it is not compiled in")
    found = chosen_in("", Q3E_KERNELS=name)["chosen"]
    if why_not is None:
        assert (found["variant"], found["why"]) == (name, f"Q3E_KERNELS={name}")
    else:
        assert (found["variant"], found["why"]) == (None, f"Q3E_KERNELS={name}, but {why_not}")
        assert (found["is_wrong"], found["faster"][0]) == (True, "unset Q3E_KERNELS")


@posix
def test_the_choice_of_a_slower_variant_names_the_faster(tmp_path: Path) -> None:
    path = with_variants(tmp_path / "q3e_kernels.so", avx512=(RIGHT, None), avx2=(RIGHT, None), amx=(RIGHT, "no"))
    found = chosen_in(path, Q3E_KERNELS="avx2")["chosen"]
    assert (found["variant"], found["faster"][0]) == ("avx2", "unset Q3E_KERNELS: this CPU runs avx512 too")


@pytest.mark.usefixtures("undecided")
@pytest.mark.parametrize("value", ["sse", "AVX2", "0", " "])
def test_another_name_is_refused_with_the_choices(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("Q3E_KERNELS", value)
    said = f"Q3E_KERNELS must be off or one of amx, avx512, avxvnni, avx2, got {value!r}"
    with pytest.raises(OptionError, match="^" + said.replace(".", r"\.") + "$"):
        LlamaEngine(DEMO)
    for command in (["embed", "--text", "a", "-m", "demo"], ["serve", "--port", 0], ["bench", "-m", "demo"]):
        result = run(*command)
        assert (result.exit_code, result.stdout) == (2, "")
        assert result.stderr.splitlines()[-1] == f"Error: {said}"
    assert in_use._chosen is None
    monkeypatch.setenv("Q3E_KERNELS", "")
    LlamaEngine(DEMO).close()


# What lasts


_TOGETHER = """
import threading
from q3e_local.llama.kernels import in_use
start, found = threading.Barrier(8), []
def choose():
    start.wait()
    found.append(in_use.chosen())
threads = [threading.Thread(target=choose) for _ in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
together = in_use.counts()
in_use.use(None)
in_use._chosen = None
in_use.chosen()
print(len(set(map(id, found))), together == in_use.counts().since(together))
"""


def test_threads_that_choose_at_once_choose_once() -> None:
    done = program(_TOGETHER)
    assert (done.stdout, done.returncode) == ("1 True\n", 0), done.stderr


_FORKED = """
import os, sys
import numpy as np, q3e_local
def vectors():
    with q3e_local.load("demo") as embedder:
        return embedder.embed_documents(["a text that is long enough for our kernels, " * 4]).vectors
first = vectors()
pid = os.fork()
if pid == 0:
    os._exit(0 if np.array_equal(vectors(), first) else 1)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(sys, "getdlopenflags") or sys.platform == "darwin", reason="fork")
def test_a_process_forked_off_computes_with_them_too() -> None:
    done = program(_FORKED)
    assert (done.stdout, done.returncode) == ("0\n", 0), done.stderr


_LOADS = """
import json, sys
import psutil
from pathlib import Path
from q3e_local.embedding.engine import EngineConfig
from q3e_local.llama.engine import LlamaEngine
taken, held, vectors = [], [], set()
ids = list(range(1, 41))
for n in range(int(sys.argv[2])):
    with LlamaEngine(Path(sys.argv[1]), EngineConfig(n_threads=1)) as engine:
        before = engine.kernels_taken
        vectors.add(engine.decode([[*ids, engine.eos_id]]).tobytes())
        taken.append(engine.kernels_taken.since(before).attentions)
    held.append(psutil.Process().memory_info().rss)
print(json.dumps({"taken": sorted(set(taken)), "held": held, "n_vectors": len(vectors)}))
"""


def test_a_hundred_loads_and_unloads() -> None:
    done = program(_LOADS, DEMO, 100)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["n_vectors"] == 1
    assert found["taken"] == ([1] if in_use.chosen().variant else [0])
    assert found["held"][-1] - found["held"][19] < 8e6
