"""`q3e-local doctor`: a sound machine passes, and each problem comes with what to do about it."""

from __future__ import annotations

import json
import os
import platform
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from command import run
from world import World, rows

from q3e_local import llama, machine
from q3e_local.checks import doctor
from q3e_local.checks.doctor import Finding, NativeLooks
from q3e_local.llama import binding
from q3e_local.llama.kernels import in_use
from q3e_local.llama.kernels.choice import Kernels
from q3e_local.models.catalog import models_folder


@pytest.fixture(autouse=True)
def _roomy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Memory and disk enough, whatever the machine the tests run on has."""
    monkeypatch.setenv("Q3E_HOME", str(tmp_path / "q3e"))
    monkeypatch.setattr(machine, "total_memory", lambda: int(16e9))
    monkeypatch.setattr(machine, "usable_memory", lambda: int(15e9))
    monkeypatch.setattr(machine, "available_memory", lambda: int(8e9))
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=int(50e9)))
    monkeypatch.setattr(binding, "system_info", lambda: "CPU : AVX2 = 1")


class InThisProcess:
    """In the place of a child: quicker, and what a test changes of llama.cpp shows."""

    is_alive = True

    def __init__(self, make: Callable[[], NativeLooks]) -> None:
        self._looks = make()

    def ask(self, method: str) -> list[Finding] | None:
        return getattr(self._looks, method)()

    def __enter__(self) -> InThisProcess:
        return self

    def __exit__(self, *_: object) -> None:
        pass


@pytest.fixture(autouse=True)
def _quick(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if "in_a_child" not in request.fixturenames:
        monkeypatch.setattr(doctor, "Child", InThisProcess)


class WithAvx2(NativeLooks):
    """As on a CPU and with a build that have it, whatever those of the tests do."""

    def llama(self) -> list[Finding]:
        binding.system_info = lambda: "CPU : AVX2 = 1"
        return super().llama()

    def kernels(self) -> list[Finding]:
        binding.system_info = lambda: "CPU : AVX2 = 1"
        return super().kernels()


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
        assert in_use.chosen() == Kernels(None, "Q3E_KERNELS=off", faster=("unset Q3E_KERNELS",))
        return super().demo()


class FailsLoading(NativeLooks):
    def llama(self) -> list[Finding]:
        sys.modules["q3e_local.llama.binding"] = None
        del llama.binding
        return super().llama()


@pytest.fixture
def in_a_child(monkeypatch: pytest.MonkeyPatch) -> Callable[[type[NativeLooks]], None]:
    """Make the native looks in a child, as these ones do."""
    return lambda looks: monkeypatch.setattr(doctor, "NativeLooks", looks)


def findings() -> tuple[int, list[dict[str, Any]]]:
    result = run("doctor", "--json")
    assert result.stderr == ""
    return result.exit_code, json.loads(result.stdout)


def problem() -> dict[str, Any]:
    """The only finding that is not well."""
    code, found = findings()
    assert code == 1
    (one,) = [finding for finding in found if not finding["ok"]]
    assert one["advice"]
    return one


def test_a_sound_machine_has_nothing_wrong(in_a_child: Callable[[type[NativeLooks]], None]) -> None:
    in_a_child(WithAvx2)
    code, found = findings()
    assert code == 0
    assert all(list(finding) == ["what", "text", "ok", "advice"] and finding["ok"] for finding in found)
    texts = {finding["what"]: finding["text"] for finding in found}
    assert set(texts) == {
        "system", "cores", "memory", "llama.cpp", "GPU", "kernels", "data", "config", "state", "hub cache", "model",
        "embedding",
    }  # fmt: skip
    wanted = "16.0 GB, 8.0 GB available: enough for qwen3-embedding:4b, which needs about 2.8 GB"
    assert texts["memory"] == wanted
    assert f"Python {platform.python_version()}" in texts["system"]
    assert texts["llama.cpp"].startswith("llama-cpp-python 0.3.36: ")
    assert texts["embedding"] == "works: 2 texts, dim 256, vectors of length 1"


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_a_llama_cpp_that_ends_its_process_is_a_finding_and_the_rest_goes_on(
    in_a_child: Callable[[type[NativeLooks]], None],
) -> None:
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


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_a_llama_cpp_that_ends_its_process_when_it_computes_is_named_with_its_last_words(
    in_a_child: Callable[[type[NativeLooks]], None],
) -> None:
    in_a_child(EndsComputing)
    one = problem()
    assert one["what"] == "embedding"
    assert one["text"] == (
        "llama.cpp ends the process here, by SIGABRT (llama.cpp stopped itself); its last words: "
        "ggml-cpu.c:1: GGML_ASSERT(tile) failed"
    )
    assert "--no-binary llama-cpp-python llama-cpp-python==0.3.36" in one["advice"]


def test_a_llama_cpp_that_is_not_installed_is_a_finding(in_a_child: Callable[[type[NativeLooks]], None]) -> None:
    in_a_child(FailsLoading)
    code, found = findings()
    wrong = [finding for finding in found if not finding["ok"]]
    assert (code, [one["what"] for one in wrong]) == (1, ["llama.cpp", "embedding"])
    assert all("q3e_local.llama.binding" in one["text"] for one in wrong)


def test_llama_cpp_is_never_in_the_process_of_doctor_itself() -> None:
    script = (
        "import sys; from q3e_local.checks.doctor import examine; list(examine()); print('llama_cpp' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("False\n", "")


def test_names_of_ones_own_are_looked_at(tmp_path: Path) -> None:
    config = tmp_path / "q3e" / "config" / "config.toml"
    config.parent.mkdir(parents=True)
    config.write_text('[aliases]\nmine = {model = "demo", dim = 64}\nlater = {model = "qwen3-embedding:8b"}')
    code, found = findings()
    texts = [finding["text"] for finding in found if finding["what"] == "names"]
    assert code == 0
    assert "aliases.later.model is not on this machine yet; get it with: q3e-local pull" in texts[0]
    assert texts[1] == f"mine, later: of your own, in {config}"
    for content, said in (
        ('[aliases]\nmine = {model = "nope"}', "aliases.mine.model: the alias mine stands for nope"),
        ("[aliases", "is no TOML"),
    ):
        config.write_text(content)
        assert said in problem()["text"]


def test_what_people_read_has_a_line_each_and_the_advice_under_it() -> None:
    result = run("doctor")
    assert (result.exit_code, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert all(line.startswith(("ok    ", " " * 17 + "-> ")) for line in lines)
    assert lines[lines.index("ok    model      only the demo model is here") + 1].endswith(
        "-> q3e-local pull qwen3-embedding:4b"
    )


def test_it_changes_nothing(tmp_path: Path) -> None:
    findings()
    assert not (tmp_path / "q3e").exists()


def advice_of(found: list[dict[str, Any]]) -> dict[str, str]:
    return {finding["what"]: finding["advice"] for finding in found if finding["advice"]}


def test_little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "available_memory", lambda: int(0.5e9))
    one = problem()
    assert (one["what"], one["text"]) == ("memory", "16.0 GB, 0.5 GB available")
    assert one["advice"] == "close other programs before you use qwen3-embedding:4b, which needs about 2.8 GB"
    assert run("doctor").stdout.splitlines()[2].startswith("WARN  memory ")


def test_memory_that_other_programs_have_is_told_of_the_model_that_is_advised(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(machine, "available_memory", lambda: int(2e9))
    code, found = findings()
    assert code == 0
    assert advice_of(found) == {
        "memory": "close other programs before you use qwen3-embedding:4b, which needs about 2.8 GB",
        "model": "q3e-local pull qwen3-embedding:4b",
    }


def test_a_small_machine_is_advised_the_model_that_fits_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "total_memory", lambda: int(3e9))
    monkeypatch.setattr(machine, "usable_memory", lambda: int(2e9))
    monkeypatch.setattr(machine, "available_memory", lambda: int(1.5e9))
    code, found = findings()
    assert code == 0
    assert advice_of(found) == {"model": "q3e-local pull qwen3-embedding:0.6b"}
    texts = {finding["what"]: finding["text"] for finding in found}
    wanted = "3.0 GB, 1.5 GB available: enough for qwen3-embedding:0.6b, which needs about 0.6 GB"
    assert texts["memory"] == wanted


def test_a_machine_that_no_model_fits_is_advised_to_pull_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "usable_memory", lambda: int(0.3e9))
    code, found = findings()
    assert code == 1
    assert advice_of(found) == {"memory": "only the demo model can run here: qwen3-embedding:0.6b needs about 0.6 GB"}


@pytest.mark.parametrize(
    ("name", "variable"), [("data", "Q3E_HOME"), ("state", "Q3E_HOME"), ("hub cache", "HF_HOME")]
)
def test_a_folder_that_cannot_be_written(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, variable: str
) -> None:
    folder = tmp_path / "q3e" / name
    folder.parent.mkdir(exist_ok=True)
    folder.write_text("a file where the folder should be")
    if name == "hub cache":
        monkeypatch.setenv("HF_HUB_CACHE", str(folder))
    one = problem()
    assert (one["what"], one["text"]) == (name, f"{folder} cannot be written")
    assert one["advice"].endswith(variable)


def test_a_disk_without_room_is_told_for_the_folders_that_models_go_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=int(1e9)))
    code, found = findings()
    assert code == 1
    wrong = {finding["what"]: finding["advice"] for finding in found if not finding["ok"]}
    assert list(wrong) == ["data", "hub cache"]
    assert wrong["data"] == "qwen3-embedding:4b needs 2.5 GB: make room, or choose another folder with Q3E_HOME"
    assert wrong["hub cache"].endswith("HF_HOME")


def break_header(path: Path) -> None:
    path = path.resolve()
    path.write_bytes(b"\0" + path.read_bytes()[1:])


def test_a_broken_model_that_is_ours(world: World) -> None:
    run("pull", "tiny:1b-q8_0")
    break_header(Path(rows()["tiny:1b-q8_0"]["path"]))
    one = problem()
    assert one["text"].startswith("tiny:1b-q8_0: ")
    assert one["advice"] == "remove it and pull it again: q3e-local rm tiny:1b-q8_0"


def test_a_broken_model_that_is_anothers(world: World, tmp_path: Path) -> None:
    run("pull", "tiny:1b-q8_0")
    path = rows()["tiny:1b-q8_0"]["path"]
    shutil.rmtree(world.home / "data")
    break_header(Path(path))
    one = problem()
    assert (
        one["advice"] == f"delete {path}, which another program put there, and pull it: q3e-local pull tiny:1b-q8_0"
    )


def test_an_imported_model_that_is_broken_or_gone(world: World, tmp_path: Path) -> None:
    path = tmp_path / "mine.gguf"
    shutil.copyfile(models_folder() / "demo.gguf", path)
    run("import", path, "--name", "mine")
    break_header(path)
    assert problem()["advice"] == f"mend {path}, or forget it: q3e-local rm mine"
    path.unlink()
    one = problem()
    assert one["text"] == "mine is gone"
    assert one["advice"] == f"{path} is no longer there; import it again, or forget it: q3e-local rm mine"


def test_a_good_model_is_told_with_its_facts(world: World) -> None:
    run("pull", "tiny:1b-q8_0")
    code, found = findings()
    assert code == 0
    assert [one["text"] for one in found if one["what"] == "model"] == [
        "demo: q8_0, dim 256, header right",
        "tiny:1b-q8_0: q8_0, dim 256, header right",
    ]


def test_a_damaged_card_does_not_end_the_examination(world: World) -> None:
    world.write_card(('license = "MIT"', ""))
    code, found = findings()
    assert code == 1
    wrong = [finding for finding in found if not finding["ok"]]
    assert [one["what"] for one in wrong] == ["models", "embedding"]
    assert all(f"{world.card}: license must be a text; it is missing" in one["text"] for one in wrong)


def test_the_slow_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("q3e_local.llama.engine.tap_agrees", lambda *arguments: "it says something else")
    one = problem()
    assert (one["what"], one["text"]) == ("embedding", "works, on the slow path")
    assert "llama-cpp-python==0.3.36" in one["advice"]


@pytest.mark.parametrize("ours", [None, "avx2"])
def test_a_build_without_avx2(monkeypatch: pytest.MonkeyPatch, ours: str | None) -> None:
    monkeypatch.setattr(binding, "system_info", lambda: "CPU : SSE3 = 1")
    monkeypatch.setattr(in_use, "variants", lambda: {"avx512": "the CPU has no AVX-512", "avx2": None})
    monkeypatch.setattr(in_use, "chosen", lambda: Kernels(ours, "because"))
    one = problem()
    text = "llama.cpp was built without AVX2, which this CPU has"
    if ours:
        text += "; our kernels use it, but compute products and attention alone"
    assert (one["what"], one["text"]) == ("CPU", text)
    assert one["advice"].startswith(
        "build llama.cpp on this machine, without SOURCE_DATE_EPOCH in the environment, by"
    )


@pytest.mark.skipif(platform.machine().lower() not in ("x86_64", "amd64"), reason="x86 only")
def test_a_build_without_avx2_where_nobody_knows_what_the_cpu_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(binding, "system_info", lambda: "CPU : SSE3 = 1")
    monkeypatch.setattr(in_use, "variants", dict)
    one = problem()
    assert (one["what"], one["text"]) == ("CPU", "llama.cpp was built without AVX2")
    assert one["advice"] == "build it on this machine, if the CPU has it"


def test_a_cpu_without_avx2_needs_no_build_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(binding, "system_info", lambda: "CPU : SSE3 = 1")
    monkeypatch.setattr(in_use, "variants", lambda: {"avx2": "the CPU has no AVX2"})
    assert findings()[0] == 0


def test_a_wheel_without_avx512_is_slow_where_our_kernels_do_not_compute(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(binding, "system_info", lambda: "CPU : AVX2 = 1")
    monkeypatch.setattr(in_use, "variants", lambda: {"avx512": None, "avx2": None})
    monkeypatch.setattr(in_use, "chosen", lambda: Kernels("avx512", "the fastest that this CPU runs"))
    assert findings()[0] == 0
    monkeypatch.setattr(in_use, "chosen", lambda: Kernels(None, "Q3E_KERNELS=off", faster=("unset Q3E_KERNELS",)))
    assert problem()["text"] == "llama.cpp was built without AVX-512, which this CPU has"


@pytest.mark.parametrize(
    ("chosen", "ok"),
    [
        (Kernels("avx2", "the fastest that this CPU runs"), True),
        (Kernels(None, "Q3E_KERNELS=off", faster=("unset Q3E_KERNELS",)), True),
        (Kernels(None, "q3e_kernels.so is damaged", True, ("install q3e-local again",)), False),
    ],
)
def test_which_kernels_compute(monkeypatch: pytest.MonkeyPatch, chosen: Kernels, ok: bool) -> None:
    monkeypatch.setattr(in_use, "chosen", lambda: chosen)
    monkeypatch.setattr(in_use, "variants", lambda: {"avx2": None})
    code, found = findings()
    (one,) = [finding for finding in found if finding["what"] == "kernels"]
    assert (code, one["ok"]) == (0 if ok else 1, ok)
    assert one["text"] == f"{chosen.name} ({chosen.why})"
    assert one["advice"] == "".join(chosen.faster)


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_kernels_that_end_their_process_are_a_finding_and_the_rest_does_without_them(
    in_a_child: Callable[[type[NativeLooks]], None],
) -> None:
    in_a_child(EndsInKernels)
    one = problem()
    assert (one["what"], one["advice"]) == ("kernels", "do without them: Q3E_KERNELS=off")
    assert one["text"].startswith("they end the process here, by SIGILL")


def test_a_build_for_a_gpu_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(binding, "can_offload", lambda: True)
    _, found = findings()
    assert [one["text"] for one in found if one["what"] == "GPU"] == [
        "this build can offload; all layers go to the GPU unless --gpu-layers says otherwise"
    ]
