"""`q3e-local doctor` on llama.cpp and our kernels: builds that do not fit the CPU, and processes that end."""

from __future__ import annotations

import os
import platform
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import pytest
from findings import findings, problem
from gpus import device, pretend

import q3e_local
from q3e_local import llama
from q3e_local.checks import doctor
from q3e_local.checks.doctor import NativeLooks
from q3e_local.checks.finding import Finding
from q3e_local.llama import binding
from q3e_local.llama.kernels import in_use
from q3e_local.llama.kernels.choice import Kernels
from q3e_local.llama.settings.placement import Device
from q3e_local.reranking.rank_model import Ranked

InAChild = Callable[[type[NativeLooks]], None]
UNSET = Kernels(None, "Q3E_KERNELS=off", faster=("unset Q3E_KERNELS",))
SIGNALS = pytest.mark.skipif(sys.platform == "win32", reason="signals")


class WithAvx2(NativeLooks):
    """As on a CPU with AVX2 and with a build that uses it, whatever CPU the tests run on."""

    def __init__(self) -> None:
        binding.system_info = lambda: "CPU : AVX2 = 1"


class EndsLoading(NativeLooks):
    """A wheel for AVX-512 on a CPU without it ends when it is imported."""

    def llama(self) -> list[Finding]:
        os.kill(os.getpid(), signal.SIGILL)
        return []


class EndsComputing(WithAvx2):
    def demo(self) -> list[Finding]:
        os.write(2, b"ggml-cpu.c:1: GGML_ASSERT(tile) failed\n")
        os.abort()


class EndsInKernels(WithAvx2):
    """On a CPU that has less than it says."""

    def kernels(self) -> list[Finding]:
        os.kill(os.getpid(), signal.SIGILL)
        return []

    def demo(self) -> list[Finding]:
        assert in_use.chosen() == UNSET
        return super().demo()


class FailsLoading(NativeLooks):
    def llama(self) -> list[Finding]:
        sys.modules["q3e_local.llama.binding"] = None
        del llama.binding
        return super().llama()


class Hangs(NativeLooks):
    """In a GPU's driver, say."""

    def llama(self) -> list[Finding]:
        time.sleep(600)
        return []


@pytest.fixture
def in_a_child(roomy: None, monkeypatch: pytest.MonkeyPatch) -> InAChild:
    """Make the native looks in a child, as a class does."""
    return lambda looks: monkeypatch.setattr(doctor, "NativeLooks", looks)


def test_a_sound_machine_has_nothing_wrong(in_a_child):
    in_a_child(WithAvx2)
    code, found = findings()
    assert code == 0
    assert all(list(finding) == ["what", "text", "ok", "advice"] and finding["ok"] for finding in found)
    texts = {finding["what"]: finding["text"] for finding in found}
    assert set(texts) == {
        "system", "cores", "memory", "llama.cpp", "GPU", "kernels", "data", "config", "state", "hub cache", "model",
        "embedding", "ranking",
    }  # fmt: skip
    wanted = "16.0 GB, 8.0 GB available: enough for qwen3-embedding:4b, which needs about 2.8 GB"
    assert texts["memory"] == wanted
    assert f"Python {platform.python_version()}" in texts["system"]
    assert texts["llama.cpp"].startswith("llama-cpp-python 0.3.36: ")
    assert texts["embedding"] == "works: 2 texts, dim 256, vectors of length 1"
    assert texts["ranking"] == "works: of 2 documents the right one is first"


@SIGNALS
def test_a_llama_cpp_that_ends_its_process_is_a_finding_and_the_rest_goes_on(in_a_child):
    in_a_child(EndsLoading)
    code, found = findings()
    assert code == 1
    loading, embedding = (finding for finding in found if not finding["ok"])
    assert loading["what"] == "llama.cpp"
    assert loading["text"] == (
        "llama.cpp ends the process here, by SIGILL (this build of llama.cpp uses instructions that this CPU lacks "
        "or that its compiler got wrong)"
    )
    assert "--no-binary llama-cpp-python llama-cpp-python==0.3.36; if it was built here" in loading["advice"]
    assert "CMAKE_ARGS=-DGGML_NATIVE=OFF" in loading["advice"]
    assert (embedding["what"], embedding["text"]) == ("embedding", "not tried, as llama.cpp cannot be loaded")
    assert {"system", "memory", "data", "hub cache", "model"} < {finding["what"] for finding in found}


def test_a_llama_cpp_that_hangs_is_a_finding_and_the_rest_goes_on(in_a_child, monkeypatch):
    monkeypatch.setattr(doctor, "ANSWER_S", 3)
    in_a_child(Hangs)
    code, found = findings()
    assert code == 1
    hanging, embedding = (finding for finding in found if not finding["ok"])
    assert (hanging["what"], hanging["text"]) == ("llama.cpp", "llama.cpp's process gave no answer within 3 s")
    assert "--device none leaves GPUs alone" in hanging["advice"]
    assert (embedding["what"], embedding["text"]) == ("embedding", "not tried, as llama.cpp cannot be loaded")


@SIGNALS
def test_a_llama_cpp_that_ends_its_process_by_computing_is_named_with_its_last_words(in_a_child):
    in_a_child(EndsComputing)
    finding = problem()
    assert finding["what"] == "embedding"
    assert finding["text"] == (
        "llama.cpp ends the process here, by SIGABRT (llama.cpp stopped itself); its last words: "
        "ggml-cpu.c:1: GGML_ASSERT(tile) failed"
    )
    assert "--no-binary llama-cpp-python llama-cpp-python==0.3.36" in finding["advice"]


@SIGNALS
def test_kernels_that_end_their_process_are_a_finding_and_the_rest_does_without_them(in_a_child):
    in_a_child(EndsInKernels)
    finding = problem()
    assert (finding["what"], finding["advice"]) == ("kernels", "do without them: Q3E_KERNELS=off")
    assert finding["text"].startswith("they end the process here, by SIGILL")


def test_a_llama_cpp_that_is_not_installed_is_a_finding(in_a_child):
    in_a_child(FailsLoading)
    code, found = findings()
    wrong = [finding for finding in found if not finding["ok"]]
    assert (code, [finding["what"] for finding in wrong]) == (1, ["llama.cpp", "embedding"])
    assert all("q3e_local.llama.binding" in finding["text"] for finding in wrong)


def test_llama_cpp_is_never_in_the_process_of_doctor_itself():
    script = (
        "import sys; from q3e_local.checks.doctor import examine; list(examine()); print('llama_cpp' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("False\n", "")


@pytest.fixture
def cpu(quick: None, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Have a llama.cpp built with this feature, and a CPU that runs these variants of our kernels."""

    def become(built_with: str, variants: dict[str, str | None], chosen: Kernels | None = None) -> None:
        monkeypatch.setattr(binding, "system_info", lambda: f"CPU : {built_with} = 1")
        monkeypatch.setattr(in_use, "variants", lambda: variants)
        if chosen is not None:
            monkeypatch.setattr(in_use, "chosen", lambda: chosen)

    return become


@pytest.mark.parametrize("ours", [None, "avx2"])
def test_a_build_without_avx2(cpu, ours):
    cpu("SSE3", {"avx512": "the CPU has no AVX-512", "avx2": None}, Kernels(ours, "because"))
    finding = problem()
    text = "llama.cpp was built without AVX2, which this CPU has"
    if ours:
        text += "; our kernels use it, but compute products and attention alone"
    assert (finding["what"], finding["text"]) == ("CPU", text)
    assert finding["advice"].startswith(
        "build llama.cpp on this machine, without SOURCE_DATE_EPOCH in the environment, by"
    )


@pytest.mark.skipif(platform.machine().lower() not in ("x86_64", "amd64"), reason="x86 only")
def test_a_build_without_avx2_where_nobody_knows_what_the_cpu_has(cpu):
    cpu("SSE3", {})
    finding = problem()
    assert (finding["what"], finding["text"]) == ("CPU", "llama.cpp was built without AVX2")
    assert finding["advice"] == "build it on this machine, if the CPU has it"


@pytest.mark.parametrize(("free_gb", "code"), [(11.2, 0), (0.5, 1)])
@pytest.mark.parametrize("runs", [{"avx2": None}, {}])
def test_a_build_without_avx2_does_not_matter_where_a_gpu_has_all_layers(cpu, monkeypatch, runs, free_gb, code):
    """As a wheel for CUDA is that was built elsewhere: the models here fit on the card, or they do not."""
    cpu("SSE3", runs, UNSET)
    monkeypatch.setattr(NativeLooks, "demo", lambda self: [])  # which would compute on the card
    pretend(monkeypatch, device(free=free_gb, total=12.0))
    found_code, found = findings()
    (finding,) = [finding for finding in found if finding["what"] == "CPU"]
    assert (found_code, finding["ok"]) == (code, code == 0)
    assert ("no matter here" in finding["text"]) == (code == 0)
    assert finding["text"].startswith("llama.cpp was built without AVX2")


def test_a_cpu_without_avx2_needs_no_build_with_it(cpu):
    cpu("SSE3", {"avx2": "the CPU has no AVX2"})
    assert findings()[0] == 0


def test_a_wheel_without_avx512_is_slow_where_our_kernels_do_not_compute(cpu):
    cpu("AVX2", {"avx512": None, "avx2": None}, Kernels("avx512", "the fastest that this CPU runs"))
    assert findings()[0] == 0
    cpu("AVX2", {"avx512": None, "avx2": None}, UNSET)
    assert problem()["text"] == "llama.cpp was built without AVX-512, which this CPU has"


@pytest.mark.parametrize(
    ("chosen", "ok"),
    [
        (Kernels("avx2", "the fastest that this CPU runs"), True),
        (UNSET, True),
        (Kernels(None, "q3e_kernels.so is damaged", True, ("install q3e-local again",)), False),
    ],
)
def test_which_kernels_compute(cpu, chosen, ok):
    cpu("AVX2", {"avx2": None}, chosen)
    code, found = findings()
    (finding,) = [finding for finding in found if finding["what"] == "kernels"]
    assert (code, finding["ok"]) == (0 if ok else 1, ok)
    assert finding["text"] == f"{chosen.name} ({chosen.why})"
    assert finding["advice"] == "".join(chosen.faster)


@pytest.mark.usefixtures("quick")
def test_the_slow_path(monkeypatch):
    monkeypatch.setattr("q3e_local.llama.tap_proof.tap_agrees", lambda *arguments: "it says something else")
    finding = problem()
    assert (finding["what"], finding["text"]) == ("embedding", "works, on the slow path")
    assert "llama-cpp-python==0.3.36" in finding["advice"]


CARD = Device("CUDA0", "NVIDIA GeForce RTX 3060", "CUDA", "discrete", 11_200_000_000, 12_600_000_000)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    ("devices", "can_offload", "makers", "text", "advice"),
    [
        ([CARD], True, ["NVIDIA"], "CUDA0: NVIDIA GeForce RTX 3060, CUDA, 11.2 of 12.6 GB free", ""),
        ([], True, ["NVIDIA"], "llama.cpp was built for a GPU, and finds none here", "install the driver of the GPU"),
        ([], False, [], "none is seen on this machine; the CPU computes", ""),
        (
            [], False, ["Intel", "NVIDIA"],
            "there is one by Intel and one by NVIDIA, and llama.cpp was built for the CPU alone", "-DGGML_CUDA=on",
        ),
        ([], False, ["AMD"], "there is one by AMD, and llama.cpp was built for the CPU alone", "-DGGML_VULKAN=on"),
        ([], False, ["Apple"], "there is one by Apple, and llama.cpp was built for the CPU alone", "-DGGML_METAL=on"),
    ],
)  # fmt: skip
def test_gpus_are_named_or_what_would_let_llama_cpp_use_them(monkeypatch, devices, can_offload, makers, text, advice):
    monkeypatch.setattr(shutil, "which", lambda name, path=None: f"/usr/bin/{name}")
    monkeypatch.setattr("q3e_local.llama.devices.devices", lambda: devices)
    monkeypatch.setattr(binding, "can_offload", lambda: can_offload)
    monkeypatch.setattr("q3e_local.machine.gpu_makers", lambda: makers)
    monkeypatch.setattr(NativeLooks, "demo", lambda self: [])  # which would compute on the card
    code, found = findings()
    (finding,) = [finding for finding in found if finding["what"] == "GPU"]
    assert (code, finding["ok"], finding["text"]) == (0, True, text)
    assert advice in finding["advice"]
    assert bool(advice) == bool(finding["advice"])


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("maker", ["NVIDIA", "AMD", "Intel"])
def test_without_the_tools_to_compile_for_a_gpu_a_prebuilt_llama_cpp_is_advised(monkeypatch, maker):
    """The line that compiles failed there, after minutes."""
    monkeypatch.setattr(binding, "can_offload", lambda: False)
    monkeypatch.setattr("q3e_local.machine.gpu_makers", lambda: [maker])
    monkeypatch.setattr(shutil, "which", lambda name, path=None: None)
    (finding,) = [finding for finding in findings()[1] if finding["what"] == "GPU"]
    assert "--only-binary llama-cpp-python --extra-index-url INDEX llama-cpp-python==0.3.36" in finding["advice"]
    assert "CMAKE_ARGS" not in finding["advice"]


@pytest.mark.usefixtures("quick")
def test_a_wrong_order_of_documents_is_a_finding(monkeypatch):
    monkeypatch.setattr(q3e_local.Reranker, "rank", lambda self, query, documents: [Ranked(0, 0.9, 2.2, False, 9)])
    finding = problem()
    assert (finding["what"], finding["advice"]) == ("ranking", "reinstall q3e-local")
