"""A real server with the models that come with the program, run by the Python in which the program is installed.

`make integrations` runs these tests in an environment that has the clients and not the program.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROGRAM = os.environ.get("Q3E_PYTHON", str(ROOT / ".venv" / "bin" / "python"))


@pytest.fixture(scope="session")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    home = tmp_path_factory.mktemp("home")
    command = [PROGRAM, "-m", "q3e_local", "serve", "-m", "demo", "-m", "demo-reranker", "--port", "0"]
    environment = os.environ | {"HOME": str(home)}
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
