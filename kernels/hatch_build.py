"""What pip, uv and `python -m build` run to make a wheel of the program: it compiles the kernels into it.

Knows hatchling and build.py. Where they cannot be compiled, it says so, and the installation goes on without them.
"""

from __future__ import annotations

import importlib.util
import platform
import re
import sys
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from packaging.tags import platform_tags


class KernelsHook(BuildHookInterface[Any]):
    """One wheel: an ordinary one gets the library, an editable one leaves it in the checkout."""

    _folder: tempfile.TemporaryDirectory[str] | None = None

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile the library before the wheel is written."""
        kernels, editable = _build_module(), version == "editable"
        if editable:
            library = Path(self.root, kernels.PLACE)
        else:
            self._folder = tempfile.TemporaryDirectory()
            library = Path(self._folder.name, "q3e_kernels.so")
        try:
            left_out = kernels.build(library)
        except kernels.BuildError as error:
            self.app.display_warning(error.sentence(kernels.AGAIN if editable else "install q3e-local again"))
            return
        for name, why in left_out.items():
            self.app.display_warning(kernels.left_out_sentence(name, why))
        if not editable:
            build_data["force_include"][str(library)] = kernels.PLACE
            build_data["pure_python"], build_data["tag"] = False, f"py3-none-{platform_tag(library, kernels.MACOS)}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Delete what was compiled, once the wheel has it."""
        if self._folder is not None:
            self._folder.cleanup()


def platform_tag(library: Path, macos: str) -> str:
    """The systems that the library runs on, as the name of a wheel says it."""
    machine = platform.machine().lower()
    if sys.platform == "darwin":
        return f"macosx_{macos.replace('.', '_')}_{machine}"
    # The library names the version of glibc that brought each function it calls. 2.17 is the oldest that pip knows.
    needed = [int(minor) for minor in re.findall(rb"GLIBC_2\.(\d+)", library.read_bytes())]
    return f"manylinux_2_{max(17, *needed)}_{machine}" if needed else next(platform_tags())


def _build_module() -> ModuleType:
    path = Path(__file__).with_name("build.py")
    spec = importlib.util.spec_from_file_location("q3e_kernels_build", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
