"""`make demo` and `scripts/install.py`: whoever waits for llama.cpp to compile sees what is being done."""

from __future__ import annotations

import io
import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from paths import ROOT

install = runpy.run_path(str(ROOT / "scripts" / "install.py"))["install"]
PIP = """
import sys, time
for line in {lines!r}:
    print(line, flush=True)
{end}
"""
LINES = [
    "Using pip 26.0",
    "Collecting apsw>=3.50 (from q3e-local==0.1.0)",
    "WARNING: a word of pip's own",
    "Collecting llama-cpp-python==0.3.36",
    "  Collecting scikit-build-core",
    "  Installing collected packages: scikit-build-core",
    "  Building wheel for llama-cpp-python (pyproject.toml): started",
    "  [7/140] c++ -o ggml.o",
]


def installed(tmp_path: Path, lines: list[str], end: str, **options: float) -> tuple[int, list[str], str]:
    """Exit code, the lines that a person sees without their times, and the log, for a pip that says `lines`."""
    out, log = io.StringIO(), tmp_path / "install.log"
    code = install([sys.executable, "-c", PIP.format(lines=lines, end=end)], log, out, **options)
    shown = out.getvalue().splitlines()
    assert all(re.match(r"  \d+:\d\d  ", line) for line in shown) or code
    return code, [re.sub(r"^  \d+:\d\d  ", "", line) for line in shown], log.read_text()


def test_each_phase_is_announced_and_the_log_has_all_that_pip_says(tmp_path):
    end = "print('Installing collected packages: apsw, llama-cpp-python')"
    code, shown, log = installed(tmp_path, LINES, end)
    phases = ["collecting packages: apsw", "compiling llama.cpp", "installing the packages"]
    assert (code, shown) == (0, phases)
    assert log.splitlines()[: len(LINES)] == LINES


@pytest.mark.parametrize("line", ["  [7/140] c++ -o ggml.o", "  [  5%] Building CXX object ggml.o"])
def test_while_llama_cpp_compiles_it_is_seen_to_be_alive(tmp_path, line):
    """Until then the fake pip waits: it goes on once it has been said."""
    flag = tmp_path / "said"
    wait = f"import pathlib\nwhile not pathlib.Path({str(flag)!r}).exists():\n    time.sleep(0.01)"
    part = "step 7 of 140" if "140" in line else "5 %"

    class Screen(io.StringIO):
        def write(self, text: str) -> int:
            if part in text:
                flag.touch()
            return super().write(text)

    screen = Screen()
    command = [sys.executable, "-c", PIP.format(lines=[*LINES[:-1], line], end=wait)]
    assert install(command, tmp_path / "log", screen, 0.05) == 0
    assert f"compiling llama.cpp, {part}\n" in screen.getvalue()


def test_a_pip_that_fails_is_shown_and_its_code_is_answered(tmp_path):
    code, shown, _ = installed(tmp_path, [*LINES, "error: no C++ compiler"], "sys.exit(3)")
    assert code == 3
    assert shown[-2] == "error: no C++ compiler"
    assert shown[-1] == f"pip failed; all it said is in {tmp_path / 'install.log'}"


def test_the_last_line_is_why_there_are_no_kernels(tmp_path):
    said = "Kernels: not compiled, and without them embedding is slower: no C++ compiler was found."
    lines = [*LINES, f"  {said}", "Installing collected packages: q3e-local"]
    out = io.StringIO()
    command = [sys.executable, "-c", PIP.format(lines=lines, end="print('Successfully installed q3e-local')")]
    assert install(command, tmp_path / "install.log", out) == 0
    shown = out.getvalue().splitlines()
    assert shown[-1] == said
    assert sum("Kernels" in line for line in shown) == 1


def make(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The project's Makefile in a folder where a test has put whatever it finds there."""
    shutil.copy(ROOT / "Makefile", folder)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    return subprocess.run(["make", *arguments], cwd=folder, env=environment, capture_output=True, text=True)


needs_make = pytest.mark.skipif(shutil.which("make") is None or os.name == "nt", reason="needs make")


@needs_make
@pytest.mark.parametrize(
    ("library", "goal", "compiled"),
    [
        ("old", "demo", True),
        ("new", "demo", False),
        (None, "demo", False),  # pip has just tried, and its reason was said
        ("old", "test", True),
        (None, "test", True),
        ("new", "kernels", True),  # a compiler may be another
    ],
)
def test_make_compiles_the_kernels_again_when_a_source_is_newer(tmp_path, library, goal, compiled):
    ages = {"pyproject.toml": 1, "constraints.txt": 1, "kernels/door.cpp": 5}
    ages |= {".venv/.ready": 2, ".venv/.ready-dev": 3}
    if library:
        ages["q3e_local/llama/kernels/q3e_kernels.so"] = {"old": 4, "new": 6}[library]
    for name, age in ages.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (age, age))
    (tmp_path / ".venv" / "bin").mkdir()
    for name in ("python", "q3e-local", "ruff", "mypy"):
        program = tmp_path / ".venv" / "bin" / name
        # Without a compiler build.py fails; the rest goes on.
        program.write_text(f'#!/bin/sh\necho "ran: {name} $*"\n[ "$1" != kernels/build.py ]\n')
        program.chmod(0o755)
    got = make(tmp_path, goal)
    ran = [line for line in got.stdout.splitlines() if line.startswith("ran: ")]
    assert ("ran: python kernels/build.py" in ran) is compiled
    assert (got.returncode == 0) is (goal != "kernels")
    if goal != "kernels":
        assert ran[-1].startswith("ran: q3e-local embed" if goal == "demo" else "ran: python -m pytest")


@needs_make
def test_a_python_that_is_too_old_is_refused_before_an_environment_is_made(tmp_path):
    """One that was made with it would be used again, whichever Python was named then."""
    for name in ("pyproject.toml", "constraints.txt"):
        (tmp_path / name).touch()
    old = tmp_path / "python3"
    old.write_text(
        f'#!/bin/sh\n[ "$1" = -c ] || {{ echo "ran: $*"; exit 0; }}\n'
        f'exec {sys.executable} -c "import sys; sys.version_info = (3, 9, 6); $2"\n'
    )
    old.chmod(0o755)
    got = make(tmp_path, "demo", f"PYTHON={old}")
    oldest = re.search(r'requires-python = ">=([\d.]+)"', (ROOT / "pyproject.toml").read_text())[1]
    assert f"q3e-local needs Python {oldest} or newer; name one, as in: make demo PYTHON=python3.12\n" in got.stderr
    assert got.returncode != 0
    assert [line for line in got.stdout.splitlines() if line.startswith("ran: ")] == ["ran: --version"]


@needs_make
@pytest.mark.parametrize("fails", [False, True])
def test_make_demo_says_what_it_does_before_it_does_it(tmp_path, fails):
    for name in ("pyproject.toml", "constraints.txt"):
        (tmp_path / name).touch()
    programs = tmp_path / "bin"
    programs.mkdir()
    # Stands for Python: makes an environment whose programs say how they were called.
    python = programs / "python3"
    python.write_text(
        '#!/bin/sh\necho "ran: python $*"\n[ "$1" = --version ] && exit 0\n'
        f"mkdir -p .venv/bin; for name in python q3e-local; do\n"
        f"printf '#!/bin/sh\\necho \"ran: %s $*\"\\nexit %s\\n' $name {3 if fails else 0} > .venv/bin/$name\n"
        "chmod +x .venv/bin/$name; done\n"
    )
    python.chmod(0o755)
    got = make(tmp_path, "demo", f"PYTHON={python}")
    lines = got.stdout.splitlines()
    assert lines[0] == "Making an environment in .venv, with this Python:"
    assert [line for line in lines if line.startswith("ran: ") and "python -c" not in line][:3] == [
        "ran: python --version",
        "ran: python -m venv .venv",
        "ran: python scripts/install.py --constraint constraints.txt --editable .[all]",
    ]
    said = got.stdout[: got.stdout.index("ran: python scripts/install.py")]
    assert re.search(r"llama.cpp is compiled .*\nabout \d+ minutes on 2 idle cores", said)
    assert (tmp_path / ".venv" / ".ready").exists() is not fails
    assert (got.returncode == 0) is not fails
    if not fails:
        assert "Embedding examples/notes with the demo model" in lines[-4]
        assert lines[-2] == "ran: q3e-local embed examples/notes -m demo --format table"
