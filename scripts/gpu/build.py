"""Make the environment of `make gpu`: this project on a llama.cpp with software devices, which need no card.

    python3 -m venv .venv-gpu && .venv-gpu/bin/python scripts/gpu/build.py

RPC servers on loopback are always there. Vulkan is, where the system has its headers, glslc and SPIR-V's headers;
Mesa's lavapipe then computes on the CPU what a card would. Says what is left out, and which Debian packages bring it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HEADER = Path(__file__).with_name("layer_settings.h")
# What a Vulkan build needs: what is looked for, below the folders where headers lie, and Debian's package.
HEADERS = {
    "vulkan/vulkan.hpp": "libvulkan-dev",
    "spirv/unified1/spirv.hpp": "spirv-headers",
}
PACKAGES = "apt-get install libvulkan-dev glslc spirv-headers mesa-vulkan-drivers"


def lacking(folders: list[Path]) -> list[str]:
    """What a Vulkan build needs and the system has not."""
    missing = [name for name in HEADERS if not any((folder / name).exists() for folder in folders)]
    return missing if shutil.which("glslc") else [*missing, "glslc"]


def header_folders() -> list[Path]:
    """Where headers lie: LunarG's SDK says it by a variable."""
    sdk = os.environ.get("VULKAN_SDK")
    return [*([Path(sdk, "include")] if sdk else []), Path("/usr/include"), Path("/usr/local/include")]


def settings(environ: dict[str, str], missing: list[str]) -> dict[str, str]:
    """The environment in which pip compiles llama.cpp."""
    flags = ["-DGGML_RPC=on", "-DLLAVA_BUILD=OFF"]
    changed = dict(environ)
    if not missing:
        flags.append("-DGGML_VULKAN=on")
        # For headers older than 1.3.272; with newer ones the file is empty.
        changed["CXXFLAGS"] = f"{environ.get('CXXFLAGS', '')} -include {HEADER}".strip()
    changed["CMAKE_ARGS"] = " ".join([*flags, environ.get("CMAKE_ARGS", "")]).strip()
    return changed


def version() -> str:
    """The requirement of llama.cpp's binding, as this project pins it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return next(each for each in project["dependencies"] if each.startswith("llama-cpp-python=="))


def is_built(missing: list[str]) -> bool:
    """Whether the environment has that llama.cpp already: compiling takes long, and pip's cache must not have it."""
    name, _, wanted = version().partition("==")
    try:
        found = metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return False
    # The headers of all backends are there in any case.
    libraries = {path.name.partition(".")[0] for path in map(Path, found.files or ()) if path.parent.name == "lib"}
    backends = {"ggml-rpc"} if missing else {"ggml-rpc", "ggml-vulkan"}
    return found.version == wanted and backends <= {name.removeprefix("lib") for name in libraries}


def main() -> int:
    missing = lacking(header_folders())
    if missing:
        print(
            f"Without Vulkan: {', '.join(missing)} is not here. Debian and Ubuntu have it by: {PACKAGES}", flush=True
        )
    environment = settings(dict(os.environ), missing)
    install = [sys.executable, str(ROOT / "scripts" / "install.py"), "--constraint", str(ROOT / "constraints.txt")]
    # pip's cache has the build for the CPU under the same name, and must not get this one.
    binding = ["--no-cache-dir", "--no-binary", "llama-cpp-python", version()]
    project = ["--editable", f"{ROOT}[dev]"]
    for arguments in [project] if is_built(missing) else [binding, project]:
        code = subprocess.run([*install, *arguments], env=environment, check=False).returncode
        if code:
            return code
    return 0


if __name__ == "__main__":
    sys.exit(main())
