"""Our kernels are used where they are sound, and nowhere else: what is proved, what the user chooses, what stays."""

from __future__ import annotations

import json
import statistics
import sys
from typing import Any

import numpy as np
import pytest
from kernel_library import CRASH, NAN, NOTHING, RIGHT, WRONG, chosen_in, compiled, program, with_variants

from q3e_local.llama.kernels import choice, in_use
from q3e_local.models.catalog import models_folder

DEMO = models_folder() / "demo.gguf"

posix = pytest.mark.skipif(sys.platform == "win32", reason="the door is closed on Windows")


@pytest.fixture(scope="module")
def without() -> dict[str, Any]:
    """What a program does with Q3E_KERNELS=off."""
    return chosen_in("", Q3E_KERNELS="off")


def test_the_compiled_library_is_sound_here():
    compiled()
    # A variant may be missing that the compiler could not compile.
    assert list(in_use.variants()) == [name for name in choice.VARIANTS if name in in_use.variants()]
    runs = [name for name, why in in_use.variants().items() if why is None]
    chosen = chosen_in("")["chosen"]
    assert not chosen["is_wrong"]
    if runs:
        assert (chosen["variant"], chosen["why"]) == (runs[0], "the fastest that this CPU runs")


LIBRARIES = {
    "a sound variant": (
        {"amx": (RIGHT, "the CPU has no AMX"), "avx2": (RIGHT, None)},
        ("avx2", False, "the fastest that this CPU runs"),
    ),
    "a variant that takes nothing is passed over": (
        {"amx": (NOTHING, None), "avx512": (RIGHT, None), "avx2": (RIGHT, None)},
        ("avx512", False, "the fastest that this CPU runs"),
    ),
    "a wrong number in 72": (
        {"amx": (WRONG, None), "avx512": (NOTHING, None), "avxvnni": (NAN, None), "avx2": (RIGHT, None)},
        ("avx2", True, "amx is not used: the product with F32 weights differs from llama.cpp's by "),
    ),
    "a variant ends the process": (
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
def test_a_variant_is_proved_once_on_a_machine(tmp_path):
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
def test_the_first_variant_that_is_proved_computes(tmp_path, without, name):
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


@posix
def test_packages_in_the_folder_where_somebody_works_are_not_those_of_the_proof(tmp_path):
    """The checkout of another version, say."""
    (tmp_path / "q3e_local").mkdir()
    (tmp_path / "q3e_local" / "__init__.py").write_text("raise SystemExit(1)")
    path = with_variants(tmp_path / "q3e_kernels.so", avx2=(RIGHT, None))
    elsewhere = f"import os, sys; sys.path.remove(''); os.chdir({str(tmp_path)!r})"
    assert chosen_in(path, elsewhere, Q3E_HOME=str(tmp_path / "home"))["chosen"]["variant"] == "avx2"


def test_off(without):
    found = without
    assert (found["chosen"]["variant"], found["chosen"]["why"]) == (None, "Q3E_KERNELS=off")
    assert found["chosen"]["faster"][0] == "unset Q3E_KERNELS"
    assert found["taken"] == {"products": 0, "attentions": 0}
    assert not any(line.startswith("WARNING") for line in found["logged"])


@posix
@pytest.mark.parametrize("name", choice.VARIANTS)
def test_a_variant_by_its_name(name):
    compiled()
    why_not = in_use.variants().get(name, "it is not compiled in")
    found = chosen_in("", Q3E_KERNELS=name)["chosen"]
    if why_not is None:
        assert (found["variant"], found["why"]) == (name, f"Q3E_KERNELS={name}")
    else:
        assert (found["variant"], found["why"]) == (None, f"Q3E_KERNELS={name}, but {why_not}")
        assert (found["is_wrong"], found["faster"][0]) == (True, "unset Q3E_KERNELS")


@posix
def test_the_choice_of_a_slower_variant_names_the_faster(tmp_path):
    path = with_variants(tmp_path / "q3e_kernels.so", avx512=(RIGHT, None), avx2=(RIGHT, None), amx=(RIGHT, "no"))
    found = chosen_in(path, Q3E_KERNELS="avx2")["chosen"]
    assert (found["variant"], found["faster"][0]) == ("avx2", "unset Q3E_KERNELS: this CPU runs avx512 too")


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
in_use._chosen = None  # as in a program that has not chosen
in_use.chosen()
print(len(set(map(id, found))), together == in_use.counts().since(together))
"""


def test_threads_that_choose_at_once_choose_once():
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
def test_a_process_forked_off_computes_with_them_too():
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


def test_a_hundred_loads_and_unloads():
    done = program(_LOADS, DEMO, 100)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["n_vectors"] == 1
    assert found["taken"] == ([1] if in_use.chosen().variant else [0])
    # What a load holds goes up and down by some MB; a leak would show between early and late ones.
    assert statistics.median(found["held"][-20:]) - statistics.median(found["held"][10:30]) < 8e6
