"""The lines that install llama.cpp anew, for the environment that this program runs in: people paste them.

Knows how pip and uv are called; runs neither.
"""

from __future__ import annotations

import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

BINDING = "llama-cpp-python==0.3.36"
_ANEW = "--force-reinstall --no-deps --no-cache-dir"


def rebuild(cmake_arguments: str = "") -> str:
    """The line that compiles llama.cpp on this machine, with these arguments of CMake."""
    line = f"{_pip_install()} {_ANEW} --no-binary llama-cpp-python {BINDING}"
    if not cmake_arguments:
        return line
    variable = f'CMAKE_ARGS="{cmake_arguments}"'
    return f"$env:{variable}; {line}" if sys.platform == "win32" else f"{variable} {line}"


def prebuilt(kind: str) -> str:
    """The line that takes one that others compiled, and where its INDEX is named."""
    line = f"{_pip_install()} {_ANEW} --only-binary llama-cpp-python --extra-index-url INDEX {BINDING}"
    return f"{line}; INDEX stands for the address in llama-cpp-python's README that ends in /whl/{kind}"


def install(*packages: str) -> str:
    """The line that adds these packages."""
    return f"{_pip_install()} {' '.join(packages)}"


def _pip_install() -> str:
    """What installs into this environment; uv makes environments that have no pip."""
    python = f'"{sys.executable}"' if " " in sys.executable else sys.executable
    if find_spec("pip") is None:
        return f"uv pip install --python {python}"
    on_path = shutil.which("python")
    if on_path is not None and Path(on_path).parent == Path(sys.executable).parent:
        python = "python"
    elif python.startswith('"') and sys.platform == "win32":
        python = f"& {python}"  # PowerShell takes a quoted name alone for text
    return f"{python} -m pip install"
