"""The kernels, held to double-precision references by a program of their own, plain and under the sanitizers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from kernel_library import build_module
from paths import ROOT

CHECK = ROOT / "kernels" / "check" / "run.py"


def compiles(folder: Path, flags: list[str]) -> str | None:
    """Why there is no compiler here that makes a running program with these flags; None where there is."""
    source, program = folder / "empty.cpp", folder / "empty"
    source.write_text("int main() { return 0; }\n")
    build = build_module()
    try:
        build.variants()
        command = [*build.compiler(), *flags, str(source), "-o", str(program)]
    except build.BuildError as reason:
        return str(reason)
    for step in (command, [str(program)]):
        done = subprocess.run(step, capture_output=True, text=True, check=False)
        if done.returncode:
            return f"{' '.join(step)}: {done.stderr.strip()[-200:]}"
    return None


@pytest.mark.parametrize("way", ["plain", "address,undefined", "thread"])
def test_the_kernels_agree_with_double_precision(way, tmp_path):
    flags = [] if way == "plain" else [f"-fsanitize={way}"]
    if reason := compiles(tmp_path, flags):
        pytest.skip(reason)
    quick = ["--quick"] if flags else []  # every case takes minutes under a sanitizer
    done = subprocess.run([sys.executable, str(CHECK), *quick, "--way", way], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "FAILED" not in done.stdout
    assert done.stdout.splitlines()[-1] == "good"
