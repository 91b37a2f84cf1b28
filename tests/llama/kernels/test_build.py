"""Compiling the kernels: into a wheel or a checkout, with what compiler there is, whole or not at all."""

from __future__ import annotations

import ctypes
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from pathlib import Path
from types import ModuleType

import pytest
from hatchling.builders.sdist import SdistBuilder
from hatchling.builders.wheel import WheelBuilder
from kernel_library import build_module
from paths import ROOT

KERNELS = ROOT / "kernels"
PLACE = "q3e_local/llama/kernels/q3e_kernels.so"

has_kernels = sys.platform != "win32" and platform.machine().lower() in ("x86_64", "amd64")
COMPILER = next((found for name in ("c++", "g++", "clang++") if (found := shutil.which(name))), None)
compiles = pytest.mark.skipif(not has_kernels or COMPILER is None, reason="needs a compiler and a CPU with kernels")
of_linux = pytest.mark.skipif(sys.platform != "linux", reason="reads what Linux loads")


build = build_module()


@pytest.fixture(scope="session")
def library() -> Path:
    """The library itself, compiled once."""
    target = Path(tempfile.mkdtemp(dir=os.environ["HOME"]), "q3e_kernels.so")
    build.build(target)
    return target


@pytest.fixture(scope="session")
def project() -> Path:
    """A copy of the source with empty kernels, which compile at once; its package has a library of another day."""
    root = Path(tempfile.mkdtemp(dir=os.environ["HOME"]))
    for name in ("pyproject.toml", "README.md", "LICENSE", ".gitignore"):
        shutil.copy(ROOT / name, root)
    for name in ("q3e_local", "kernels"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__", "q3e_kernels.*"))
    (root / "models").mkdir()
    (root / "models" / "demo.gguf").write_bytes(b"a model")
    (root / PLACE).write_bytes(b"of another day")
    if has_kernels:
        for name in build.variants():
            variant = f'#include "operation.h"\nnamespace q3e {{ extern const Variant {name} = {{"{name}"}}; }}\n'
            (root / "kernels" / f"{name}.cpp").write_text(variant)
    return root


@pytest.fixture(scope="session")
def quick(project: Path) -> ModuleType:
    """build.py beside the empty kernels."""
    return build_module(project / "kernels" / "build.py")


@pytest.fixture(scope="session")
def quick_library(quick: ModuleType) -> Path:
    target = Path(tempfile.mkdtemp(dir=os.environ["HOME"]), "q3e_kernels.so")
    assert quick.build(target) == {}
    return target


def wheel(project: Path, folder: Path) -> tuple[str, dict[str, bytes]]:
    """Its tag, and what is in it."""
    (path,) = WheelBuilder(str(project)).build(directory=str(folder), versions=["standard"])
    with zipfile.ZipFile(path) as file:
        assert len(set(file.namelist())) == len(file.namelist())
        content = {name: file.read(name) for name in file.namelist()}
    tag = path[path.index("py3-none-") : -len(".whl")]
    (of_wheel,) = [text for name, text in content.items() if name.endswith(".dist-info/WHEEL")]
    assert f"Tag: {tag}\n" in of_wheel.decode()
    return tag, content


def editable(project: Path, folder: Path) -> None:
    """What the hook does in the checkout before an editable wheel is written; it changes nothing in that wheel."""
    builder = WheelBuilder(str(project))
    (hook,) = builder.get_build_hooks(str(folder)).values()
    data = builder.get_default_build_data()
    hook.initialize("editable", data)
    assert data == builder.get_default_build_data()


def fake_compiler(folder: Path, lines: str) -> str:
    """A program that runs these lines of shell, and then the real compiler."""
    path = folder / "fake-c++"
    path.write_text(f'#!/bin/sh\n{lines}\nexec {COMPILER} "$@"\n')
    path.chmod(0o755)
    return str(path)


def variants_in(path: Path) -> list[str]:
    opened = ctypes.CDLL(str(path))
    opened.q3e_variant.restype = ctypes.c_char_p
    names = []
    while (name := opened.q3e_variant(len(names))) is not None:
        names.append(name.decode())
    return names


def said_of_kernels(capsys: pytest.CaptureFixture[str]) -> str:
    """The only line for people in what was printed."""
    (said,) = [line for stream in capsys.readouterr() for line in stream.splitlines() if line.startswith("Kernels: ")]
    return said


def said_by_readelf(path: Path, *options: str) -> str:
    if sys.platform == "darwin":
        pytest.skip("macOS has no ELF files, which readelf reads")
    return subprocess.run(["readelf", "--wide", *options, path], capture_output=True, text=True, check=True).stdout


# What is compiled


@compiles
def test_a_variant_is_left_out_only_where_the_compiler_has_no_flag_for_it(tmp_path, library):
    empty = tmp_path / "empty.cpp"
    empty.touch()

    def has_flags(flags: list[str]) -> bool:
        command = [*build.compiler(), *flags, "-c", str(empty), "-o", str(tmp_path / "empty.o")]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    assert variants_in(library) == [name for name, flags in build.variants().items() if has_flags(flags)]


@compiles
@of_linux
def test_the_library_needs_the_c_library_alone_and_shows_our_functions_alone(library):
    needed = set(re.findall(r"\(NEEDED\).*\[(.*)\]", said_by_readelf(library, "--dynamic")))
    assert {name.partition(".so")[0] for name in needed} <= {"libc", "libm", "ld-linux-x86-64", "libc.musl-x86_64"}
    rows = [line.split() for line in said_by_readelf(library, "--dyn-syms").splitlines()]
    shown = [row[7] for row in rows if len(row) >= 8 and row[0][:-1].isdigit() and row[6] not in ("UND", "ABS")]
    assert "q3e_open" in shown
    assert [name for name in shown if not name.startswith("q3e_")] == []


@compiles
def test_the_same_sources_are_the_same_library(tmp_path, quick, quick_library):
    quick.build(tmp_path / "again.so")
    assert (tmp_path / "again.so").read_bytes() == quick_library.read_bytes()


@compiles
def test_a_compiler_too_old_for_a_variant_makes_the_others(tmp_path, monkeypatch, project, capsys):
    old = "for one; do [ $one = -mamx-bf16 ] && echo \"error: no option '$one'\" >&2 && exit 1; done"
    monkeypatch.setenv("CXX", fake_compiler(tmp_path, old))
    _, content = wheel(project, tmp_path)
    (tmp_path / "made.so").write_bytes(content[PLACE])
    assert variants_in(tmp_path / "made.so") == [name for name in build.variants() if name != "amx"]
    assert said_of_kernels(capsys) == (
        "Kernels: without amx, which this compiler cannot do (error: no option '-mamx-bf16')."
    )


@pytest.mark.parametrize(
    ("system", "machine", "reason"), [("win32", "AMD64", "closed on Windows"), ("linux", "riscv64", "riscv64")]
)
def test_where_there_are_no_kernels_the_sentence_has_no_advice(monkeypatch, system, machine, reason):
    monkeypatch.setattr(platform, "machine", lambda: machine)
    with monkeypatch.context() as only_here:
        only_here.setattr(sys, "platform", system)
        with pytest.raises(build.BuildError, match=reason) as raised:
            build.variants()
    assert "To have them" not in raised.value.sentence("try again")


# Wheels


@compiles
@of_linux
def test_a_wheel_has_a_library_of_now_and_names_the_oldest_system_it_runs_on(tmp_path, project, quick_library):
    tag, content = wheel(project, tmp_path)
    assert content[PLACE] == quick_library.read_bytes()
    assert {"q3e_local/models/cards/demo.gguf", "q3e_local/__init__.py"} <= set(content)
    assert [name for name in content if name.startswith("kernels")] == []
    needed = re.findall(r"Name: GLIBC_2\.(\d+)", said_by_readelf(quick_library, "--version-info"))
    if needed:
        assert tag == f"py3-none-manylinux_2_{max(17, *map(int, needed))}_x86_64"
    else:
        assert tag.startswith("py3-none-musllinux_")


@pytest.mark.parametrize(("machine", "tag"), [("arm64", "macosx_11_0_arm64"), ("x86_64", "macosx_11_0_x86_64")])
def test_the_tag_on_macos(monkeypatch, tmp_path, machine, tag):
    hook = build_module(KERNELS / "hatch_build.py")
    monkeypatch.setattr(platform, "machine", lambda: machine)
    with monkeypatch.context() as only_here:
        only_here.setattr(sys, "platform", "darwin")
        found = hook.platform_tag(tmp_path / "not read", build.MACOS)
    assert found == tag


WITHOUT = [
    ("", "no C++ compiler was found. To have them, install one (for instance the package g++), then "),
    ("/bin/false", "/bin/false cannot compile any of them (it ended with exit code 1). To have them, take a newer"),
    ("/nowhere/c++", "No such file or directory: '/nowhere/c++'. To have them, put that right, then "),
]


@pytest.mark.skipif(not has_kernels, reason="another sentence is said")
@pytest.mark.parametrize(("cxx", "why"), WITHOUT)
@pytest.mark.parametrize("version", ["standard", "editable"])
def test_without_a_compiler_there_is_a_wheel_for_every_system_and_a_sentence(
    tmp_path, monkeypatch, project, capsys, cxx, why, version
):
    monkeypatch.setenv("CXX", cxx)
    monkeypatch.setenv("PATH", str(tmp_path))
    if version == "editable":
        editable(project, tmp_path)
        again = "run `python3 kernels/build.py`."
    else:
        tag, content = wheel(project, tmp_path)
        assert tag == "py3-none-any"
        assert [name for name in content if name.endswith(".so")] == []
        again = "install q3e-local again."
    said = said_of_kernels(capsys)
    assert said.startswith("Kernels: not compiled, and without them embedding is slower: ")
    assert why in said
    assert said.endswith(again)
    assert (project / PLACE).read_bytes() == b"of another day"


@compiles
def test_an_editable_installation_leaves_the_library_in_the_checkout(tmp_path, project, quick_library):
    mine = tmp_path / "checkout"
    shutil.copytree(project, mine)
    editable(mine, tmp_path)
    assert (mine / PLACE).read_bytes() == quick_library.read_bytes()


@compiles
def test_a_place_that_cannot_be_written_is_no_failure(tmp_path, project, capsys):
    mine = tmp_path / "checkout"
    shutil.copytree(project, mine)
    (mine / PLACE).unlink()
    (mine / PLACE).mkdir()
    editable(mine, tmp_path)
    assert "Is a directory" in said_of_kernels(capsys)
    assert [file.name for file in (mine / PLACE).parent.glob("q3e_kernels*")] == [Path(PLACE).name]


def test_a_source_distribution_has_all_that_compiles_them(tmp_path, project):
    (path,) = SdistBuilder(str(project)).build(directory=str(tmp_path))
    with tarfile.open(path) as file:
        names = {name.partition("/")[2] for name in file.getnames()}
    expected = {f"kernels/{file.name}" for file in KERNELS.iterdir() if file.suffix in (".cpp", ".h", ".py")}
    assert len(expected) > 10
    assert {*expected, ".gitignore", "LICENSE", "pyproject.toml"} <= names
    assert PLACE not in names


# Whole or not at all


@compiles
@pytest.mark.parametrize("ends", ["kill -9 $$", "exit 1"])
def test_a_compiler_that_dies_leaves_the_library_as_it_was(tmp_path, monkeypatch, quick, ends):
    """The compiler dies when it links, with half a library written."""
    half = 'for last; do :; done; case "$*" in *-shared*) echo half > "$last";' + f"{ends};; esac"
    monkeypatch.setenv("CXX", fake_compiler(tmp_path, half))
    target = tmp_path / "place" / "q3e_kernels.so"
    target.parent.mkdir()
    target.write_bytes(b"before")
    with pytest.raises(quick.BuildError):
        quick.build(target)
    assert {file.name: file.read_bytes() for file in target.parent.iterdir()} == {target.name: b"before"}


@compiles
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_build_that_is_ended_leaves_the_library_as_it_was(tmp_path, project, number):
    flag, target = tmp_path / "links", tmp_path / "place" / "q3e_kernels.so"
    cxx = fake_compiler(tmp_path, f'case "$*" in *-shared*) touch {flag}; sleep 60;; esac')
    target.parent.mkdir()
    target.write_bytes(b"before")
    command = [sys.executable, str(project / "kernels" / "build.py"), str(target)]
    with subprocess.Popen(
        command, env={**os.environ, "CXX": cxx}, stderr=subprocess.DEVNULL, start_new_session=True
    ) as process:
        while not flag.exists():
            assert process.poll() is None
            time.sleep(0.01)
        os.killpg(process.pid, number)
    assert process.returncode != 0
    assert {file.name: file.read_bytes() for file in target.parent.iterdir()} == {target.name: b"before"}


@compiles
def test_two_builds_at_once_leave_one_whole_library(tmp_path, project, quick_library):
    target = tmp_path / "place" / "q3e_kernels.so"
    command = [sys.executable, str(project / "kernels" / "build.py"), str(target)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    listed = ", ".join(variants_in(quick_library))
    for process in processes:
        assert process.communicate()[0].splitlines()[-1] == f"Kernels: compiled for {listed}."
        assert process.returncode == 0
    assert [file.name for file in target.parent.iterdir()] == [target.name]
    assert target.read_bytes() == quick_library.read_bytes()


# A checkout whose sources are others than those of its library

WHO = """
from pathlib import Path
from q3e_local.llama.kernels import compiled, in_use
compiled.LIBRARY = Path({!r})
print(in_use.chosen())
"""


@compiles
def test_a_checkout_uses_no_library_of_other_sources(library, quick_library):
    def who(path: Path) -> str:
        command = [sys.executable, "-c", WHO.format(str(path))]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout

    assert "was compiled from other sources" in who(quick_library)
    assert "variant=None" in who(quick_library)
    assert "sources" not in who(library)
