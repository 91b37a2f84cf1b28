"""How `make gpu` compiles llama.cpp: with Vulkan where the system can, and never from or into pip's cache."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
from pathlib import Path
from types import ModuleType

import pytest
from paths import ROOT

SCRIPT = ROOT / "scripts" / "gpu" / "build.py"


@pytest.fixture
def build() -> ModuleType:
    spec = importlib.util.spec_from_file_location("build_gpu", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_vulkan_is_compiled_where_nothing_lacks(build, tmp_path, monkeypatch):
    for name in build.HEADERS:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.setattr(shutil, "which", lambda name: "/usr/bin/glslc")
    assert build.lacking([tmp_path]) == []
    made = build.settings({"CMAKE_ARGS": "-DX=1", "CXXFLAGS": "-g", "HOME": "/home"}, [])
    assert made["CMAKE_ARGS"] == "-DGGML_RPC=on -DLLAVA_BUILD=OFF -DGGML_VULKAN=on -DX=1"
    assert made["CXXFLAGS"] == f"-g -include {build.HEADER}"
    assert made["HOME"] == "/home"


def test_what_lacks_is_named_and_vulkan_left_out(build, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert build.lacking([tmp_path]) == ["vulkan/vulkan.hpp", "spirv/unified1/spirv.hpp", "glslc"]
    assert build.settings({}, ["glslc"]) == {"CMAKE_ARGS": "-DGGML_RPC=on -DLLAVA_BUILD=OFF"}


def test_the_binding_is_compiled_anew_and_the_rest_is_installed_with_the_tests_needs(build, monkeypatch):
    calls: list[list[str]] = []

    def ran(command: list[str], **options: object) -> subprocess.CompletedProcess[bytes]:
        calls.append(command[2:])
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(subprocess, "run", ran)
    monkeypatch.setattr(build, "is_built", lambda missing: False)
    assert build.main() == 0
    constraints = ["--constraint", str(ROOT / "constraints.txt")]
    binding, project = calls
    assert binding[:2] == project[:2] == constraints
    assert binding[2:5] == ["--no-cache-dir", "--no-binary", "llama-cpp-python"]
    assert binding[5].startswith("llama-cpp-python==")
    assert project[2:] == ["--editable", f"{ROOT}[dev]"]
    calls.clear()
    monkeypatch.setattr(build, "is_built", lambda missing: True)
    assert build.main() == 0
    assert calls == [project]


@pytest.mark.parametrize(
    ("files", "found", "missing", "expected"),
    [
        (["libggml-rpc.so.0", "libggml-vulkan.so"], None, [], True),
        (["libggml-rpc.so.0", "libggml-vulkan.so"], "0.0.1", [], False),
        (["libggml-rpc.so"], None, [], False),
        (["libggml-rpc.dylib"], None, ["glslc"], True),
        (["libggml-cpu.so"], None, ["glslc"], False),
    ],
)
def test_what_is_built_already_is_not_built_again(build, monkeypatch, files, found, missing, expected):
    class Distribution:
        version = found or build.version().partition("==")[2]

    Distribution.files = ["llama_cpp/include/ggml-vulkan.h", *(f"llama_cpp/lib/{name}" for name in files)]
    monkeypatch.setattr(build.metadata, "distribution", lambda name: Distribution)
    assert build.is_built(missing) == expected


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
@pytest.mark.parametrize("has_extension", [False, True])
def test_the_header_gives_what_older_headers_lack_and_nothing_else(build, tmp_path, has_extension):
    """With headers of Vulkan's that have the types themselves, a second definition would not compile."""
    folder = tmp_path / "vulkan"
    folder.mkdir()
    extension = (
        "#define VK_EXT_layer_settings 1\nnamespace vk { struct LayerSettingEXT { int of_newer_headers; }; }\n"
    )
    (folder / "vulkan_core.h").write_text(
        "#pragma once\n#include <cstdint>\ntypedef uint32_t VkBool32;\nenum VkStructureType { VK_TYPE = 0 };\n"
        + (extension if has_extension else ""),
        encoding="ascii",
    )
    program = tmp_path / "program.cpp"
    old = """
        VkBool32 yes = 1;
        std::vector<vk::LayerSettingEXT> settings = {{"layer", "setting", vk::LayerSettingTypeEXT::eBool32, 1, &yes}};
        vk::LayerSettingsCreateInfoEXT info(settings);
        return info.sType == 1000496000 && info.settingCount == 1 && sizeof(info) == 32 ? 0 : 1;
    """
    new = "vk::LayerSettingEXT setting; setting.of_newer_headers = 0; return setting.of_newer_headers;"
    body = new if has_extension else old
    program.write_text(
        f"#include <vector>\n#include <vulkan/vulkan_core.h>\nint main() {{ {body} }}\n", encoding="ascii"
    )
    compile_it = ["g++", "-std=c++17", "-I", str(tmp_path), "-include", str(build.HEADER), str(program)]
    subprocess.run([*compile_it, "-o", str(tmp_path / "program")], check=True)
    assert subprocess.run([str(tmp_path / "program")], check=False).returncode == 0


def test_the_makefile_keeps_it_out_of_make_test():
    makefile = Path(ROOT / "Makefile").read_text(encoding="utf-8")
    (of_test,) = [line for line in makefile.splitlines() if line.startswith("test:")]
    assert "gpu" not in of_test
    assert "scripts/gpu/build.py" in makefile
