"""Where layers will go, as a process knows it that has not loaded llama.cpp."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest
from gpus import device

from q3e_local.embedding.engine import EngineConfig
from q3e_local.errors import OptionError
from q3e_local.gguf.model_file import inspect
from q3e_local.llama import binding, forecast
from q3e_local.llama.settings import kept
from q3e_local.llama.settings.defaults import Tuned
from q3e_local.llama.settings.placement import Device


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["libggml.so", "libggml-base.so", "libggml-cpu.so", "libggml-cpu.so.0"], False),
        (["libggml-base.so", "libggml-cuda.so"], True),
        (["libggml-metal.dylib"], True),
        (["ggml-vulkan.dll"], True),
        (["libggml-rpc.so.0"], True),
        (["libggml-blas.so", "libggml-cpu-haswell.so"], False),
    ],
)
def test_a_build_is_known_by_its_libraries(monkeypatch, tmp_path, names, expected):
    class Spec:
        submodule_search_locations = (str(tmp_path),)

    (tmp_path / "lib").mkdir()
    for name in names:
        (tmp_path / "lib" / name).touch()
    monkeypatch.delenv("LLAMA_CPP_LIB_PATH", raising=False)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: Spec)
    assert forecast.may_offload() == expected


def test_of_a_build_that_is_named_the_libraries_count_and_not_those_of_the_package(monkeypatch, tmp_path):
    """A build for a GPU was taken for the installed one, and computed in the process of the command."""
    monkeypatch.setenv("LLAMA_CPP_LIB_PATH", str(tmp_path))
    for name, expected in (("libggml-cpu.so", False), ("libggml-vulkan.so", True)):
        (tmp_path / name).touch()
        assert forecast.may_offload() == expected


@pytest.mark.skipif(binding.can_offload(), reason="what a build of llama.cpp without GPUs is asked")
def test_a_build_without_gpus_starts_no_process_to_ask_for_them(monkeypatch):
    monkeypatch.setattr(forecast, "Child", lambda *_: pytest.fail("a process was started"))
    assert (forecast.may_offload(), forecast.devices()) == (False, [])


def test_a_process_of_its_own_asks_and_llama_cpp_is_not_loaded_here():
    script = """
import sys
from q3e_local.llama import forecast
forecast.may_offload = lambda: True
if __name__ == "__main__":
    print(forecast.devices(), "llama_cpp" in sys.modules)
"""
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert (answer.returncode, answer.stdout) == (0, "[] False\n"), answer.stderr


class Hanging:
    """Asks a driver that hangs."""

    def devices(self) -> list[Device]:
        time.sleep(600)
        return []


class Ending:
    """Asks a driver that ends the process."""

    def devices(self) -> list[Device]:
        os._exit(7)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (Hanging, "the CPU computes: no GPU answered within 3 s, so that a driver seems to hang; "),
        (
            Ending,
            "the CPU computes: GPUs cannot be asked, as that ends llama.cpp's process (ended with exit code 7); ",
        ),
    ],
)
def test_a_driver_that_gives_no_answer_leaves_the_work_to_the_cpu(tiny_gguf, monkeypatch, caplog, asked, said):
    """One that hung held up for ever whoever asked."""
    monkeypatch.setattr(forecast, "may_offload", lambda: True)
    monkeypatch.setattr(forecast, "_Asked", asked)
    monkeypatch.setattr(forecast, "ANSWER_S", 3)
    assert not forecast.expected(inspect(tiny_gguf("f32")), EngineConfig()).on_gpu
    (record,) = caplog.records
    assert (record.levelname, record.getMessage().startswith(said)) == ("WARNING", True)


@pytest.mark.parametrize(
    ("options", "n"),
    [({}, 3), ({"n_gpu_layers": 0}, 0), ({"device": "none"}, 0), ({"n_gpu_layers": 2}, 2), ({"device": "CUDA0"}, 3)],
)
def test_layers_are_expected_where_an_engine_will_put_them(tiny_gguf, monkeypatch, options, n):
    monkeypatch.setattr(forecast, "devices", lambda: [device()])
    assert forecast.expected(inspect(tiny_gguf("f32")), EngineConfig(**options)).n_on_gpu == n


def test_a_gpu_that_the_cpu_beat_is_not_expected_to_be_used(tiny_gguf, monkeypatch):
    monkeypatch.setattr(forecast, "devices", lambda: [device(kind="integrated")])
    info = inspect(tiny_gguf("f32"))
    place = forecast.expected(info, EngineConfig()).place
    kept.keep(info.digest, kept.here(binding.version(), place=place), Tuned(None, None, "2026-11-30", 0))
    assert not forecast.expected(info, EngineConfig()).on_gpu
    assert forecast.expected(info, EngineConfig(device="CUDA0")).all_on_gpu


def test_a_device_that_is_not_here_is_refused_before_anything_is_loaded(tiny_gguf, monkeypatch):
    monkeypatch.setattr(forecast, "devices", lambda: [device()])
    with pytest.raises(OptionError, match="got 'CUDA1'"):
        forecast.expected(inspect(tiny_gguf("f32")), EngineConfig(device="CUDA1"))
