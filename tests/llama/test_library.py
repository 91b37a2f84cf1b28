"""A llama.cpp that cannot be loaded is an error that says what to do, also where it lacks another library."""

from __future__ import annotations

import pytest

from q3e_local.errors import EngineError
from q3e_local.llama import library


def said(error: Exception) -> str:
    with pytest.raises(EngineError) as caught, library.importing():
        raise error
    return str(caught.value)


def missing(name: str) -> RuntimeError:
    """As the binding says it, in the loader's words."""
    return RuntimeError(
        f"Failed to load shared library '/v/llama_cpp/lib/libllama.so': {name}: cannot open shared object file: "
        "No such file or directory"
    )


@pytest.mark.parametrize(
    ("name", "way_out"),
    [
        ("libcudart.so.12", " nvidia-cublas-cu12 nvidia-cuda-runtime-cu12"),
        ("libcublas.so.13", " nvidia-cublas nvidia-cuda-runtime"),
        ("libcuda.so.1", "NVIDIA's driver"),
        ("libvulkan.so.1", "libvulkan1"),
        ("libgomp.so.1", "libgomp1"),
        ("libamdhip64.so.7", "ROCm"),
        ("libstdc++.so.6", "--no-binary llama-cpp-python llama-cpp-python==0.3.36"),
    ],
)
def test_a_library_that_is_missing_comes_with_what_brings_it(name, way_out):
    text = said(missing(name))
    assert text.startswith(
        "llama.cpp cannot be loaded: Failed to load shared library '/v/llama_cpp/lib/libllama.so': "
    )
    assert way_out in text.partition("No such file or directory; ")[2]


def test_windows_does_not_say_which_library_is_missing():
    error = RuntimeError(
        "Failed to load shared library 'C:\\v\\llama_cpp\\lib\\llama.dll': Could not find module "
        "'C:\\v\\llama_cpp\\lib\\llama.dll' (or one of its dependencies). Try using the full path."
    )
    assert "winget install Microsoft.VCRedist.2015+.x64" in said(error)
    assert "nvidia-cublas-cu12" in said(error)


def test_a_crash_that_windows_lets_python_catch_has_the_advice_of_a_crash():
    error = OSError("[WinError -1073741795] Windows Error 0xc000001d")
    error.winerror = -1073741795
    assert "CMAKE_ARGS=-DGGML_NATIVE=OFF" in said(error)


def test_a_llama_cpp_that_is_not_installed_is_compiled():
    assert said(ModuleNotFoundError("No module named 'llama_cpp'")).endswith(
        "--no-binary llama-cpp-python llama-cpp-python==0.3.36"
    )
