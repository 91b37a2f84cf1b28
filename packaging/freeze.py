"""Freeze the program of this environment, with Python and all packages, into a folder, and that into an archive.

    pip install ".[all]" pyinstaller
    python packaging/freeze.py --out dist

For machines without Python, Windows above all. The archive's folder has `q3e-local` (on Windows `q3e-local.exe`),
which embeds a text before the archive is written.
"""

from __future__ import annotations

import argparse
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import PyInstaller.__main__

import q3e_local

NAME = "q3e-local"
# Packages that load parts of themselves by name, or read files beside their code.
WHOLE = ("q3e_local", "llama_cpp", "uvicorn", "docx", "pptx", "odfdo")
# Those whose version is asked for when the program runs.
WITH_VERSION = ("q3e-local", "llama-cpp-python", "huggingface-hub", "mcp")
SYSTEMS = {"win32": "windows", "darwin": "macos"}


def freeze(folder: Path) -> Path:
    """The folder of the frozen program."""
    arguments = ["--noconfirm", "--log-level", "WARN", "--name", NAME, "--onedir", "--console"]
    arguments += ["--distpath", str(folder), "--workpath", str(folder / "work"), "--specpath", str(folder / "work")]
    arguments += [word for package in WHOLE for word in ("--collect-all", package)]
    arguments += [word for package in WITH_VERSION for word in ("--copy-metadata", package)]
    PyInstaller.__main__.run([*arguments, str(Path(__file__).with_name("frozen.py"))])
    return folder / NAME


def try_out(frozen: Path) -> None:
    """Embed a text, with the kernels of this machine. Raises SystemExit where the program says anything else."""
    program = frozen / (f"{NAME}.exe" if sys.platform == "win32" else NAME)
    command = [program, "embed", "--text", "hello", "-m", "demo", "--quiet"]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=False)
    if done.returncode or done.stderr:
        sys.exit(f"the frozen program ended with {done.returncode}: {done.stderr}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--out", type=Path, required=True, help="the folder that gets the archive")
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    system = SYSTEMS.get(sys.platform, sys.platform)
    machine = {"amd64": "x64", "x86_64": "x64"}.get(platform.machine().lower(), platform.machine().lower())
    with tempfile.TemporaryDirectory() as name:
        frozen = freeze(Path(name))
        try_out(frozen)
        archive = out / f"{NAME}-{q3e_local.__version__}-{system}-{machine}"
        print(shutil.make_archive(str(archive), "zip", name, NAME))


if __name__ == "__main__":
    main()
