"""A real server with a tiny reranker, run by the Python in which the program is installed.

`make integrations` runs these tests in an environment that has the clients and not the program, and those in mteb/
and frameworks/ in others that have the program too.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# Writes the reranker, which needs the packages of the tests.
WRITE = (
    "import sys; sys.path.insert(0, 'tests'); import rerankers; rerankers.write_taught(rerankers.Path(sys.argv[1]))"
)
PROGRAM = os.environ.get("Q3E_PYTHON", str(ROOT / ".venv" / "bin" / "python"))
HAS_AMX = "from q3e_local.llama.kernels import in_use; print(in_use.variants().get('amx', 'not compiled in') is None)"
# With AMX the third digit of a number depends on what is computed with it: tests/conftest.py says why.
if subprocess.run([PROGRAM, "-c", HAS_AMX], capture_output=True, text=True, check=True, cwd=ROOT).stdout == "True\n":
    os.environ["Q3E_KERNELS"] = "avx512"


@pytest.fixture(scope="session")
def taught(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reranker's file, which learned one answer by heart."""
    model = tmp_path_factory.mktemp("models") / "taught-reranker.gguf"
    subprocess.run([PROGRAM, "-c", WRITE, model], check=True, cwd=ROOT)
    return model


@pytest.fixture(scope="session")
def start(taught: Path) -> list[str]:
    """What starts a server for the tests of this folder."""
    return [PROGRAM, "-m", "q3e_local", "serve", "-m", str(taught)]


@pytest.fixture(scope="session")
def address(start: list[str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Of a running server."""
    command = [*start, "--port", "0"]
    environment = os.environ | {"HOME": str(tmp_path_factory.mktemp("home"))}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment, cwd=ROOT) as process:
        try:
            said = ""
            assert process.stderr is not None
            while not (found := re.search(r"listens on (http://127\.0\.0\.1:\d+)", said)):
                line = process.stderr.readline()
                assert line, f"the server ended at its start: {said}"
                said += line
            yield found[1]
        finally:
            process.terminate()
