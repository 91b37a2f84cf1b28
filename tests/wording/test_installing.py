"""Lines that install llama.cpp anew are for the environment that the program runs in."""

from __future__ import annotations

import shutil
import sys

import pytest

from q3e_local.wording import installing

ARGUMENTS = "--force-reinstall --no-deps --no-cache-dir --no-binary llama-cpp-python llama-cpp-python==0.3.36"


@pytest.fixture
def environment(monkeypatch):
    """Have this Python, with pip or not, and another `python` on the PATH or none."""

    def become(executable, has_pip=True, on_path=None, platform="linux"):
        monkeypatch.setattr(sys, "executable", executable)
        monkeypatch.setattr(sys, "platform", platform)
        monkeypatch.setattr(installing, "find_spec", lambda name: object() if has_pip else None)
        monkeypatch.setattr(shutil, "which", lambda name: on_path)

    return become


@pytest.mark.parametrize(
    ("given", "begins"),
    [
        (
            {"executable": "/home/me/.venv/bin/python3", "on_path": "/home/me/.venv/bin/python"},
            "python -m pip install",
        ),
        (
            {"executable": "/home/me/.venv/bin/python", "on_path": "/usr/bin/python"},
            "/home/me/.venv/bin/python -m pip",
        ),
        ({"executable": "/home/me/.venv/bin/python"}, "/home/me/.venv/bin/python -m pip install"),
        ({"executable": "/a b/bin/python"}, '"/a b/bin/python" -m pip install'),
        ({"executable": r"C:\a b\python.exe", "platform": "win32"}, r'& "C:\a b\python.exe" -m pip install'),
        # As `uv tool install` makes them.
        (
            {"executable": "/u/tools/q3e-local/bin/python", "has_pip": False},
            "uv pip install --python /u/tools/q3e-local/",
        ),
    ],
)
def test_packages_go_where_the_program_is(environment, given, begins):
    environment(**given)
    assert installing.rebuild().startswith(begins)
    assert installing.rebuild().endswith(f" {ARGUMENTS}")
    assert installing.install("one", "two").endswith(" one two")


def test_arguments_of_cmake_are_given_as_each_shell_takes_them(environment):
    environment("/v/bin/python", on_path="/v/bin/python")
    assert installing.rebuild("-DGGML_CUDA=on") == f'CMAKE_ARGS="-DGGML_CUDA=on" python -m pip install {ARGUMENTS}'
    environment("/v/bin/python", on_path="/v/bin/python", platform="win32")
    assert installing.rebuild("-DGGML_CUDA=on").startswith('$env:CMAKE_ARGS="-DGGML_CUDA=on"; python -m pip install ')


def test_a_prebuilt_one_is_a_wheel_of_the_same_version(environment):
    environment("/v/bin/python", on_path="/v/bin/python")
    line, _, where = installing.prebuilt("vulkan").partition("; ")
    assert "--only-binary llama-cpp-python --extra-index-url INDEX llama-cpp-python==0.3.36" in line
    assert where.endswith("ends in /whl/vulkan")
