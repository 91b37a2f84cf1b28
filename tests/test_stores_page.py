"""The pages on stores: what needs no other store than SQLite and files is run here, the rest by make integrations."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pyarrow.parquet
import pytest
from click.testing import CliRunner
from paths import ROOT

from q3e_local.cli import main
from q3e_local.stores.address import parse

ENGLISH, CHINESE = ((ROOT / "docs" / name).read_text(encoding="utf-8") for name in ("stores.md", "stores.zh-CN.md"))
SCHEMES = {
    "qdrant", "qdrant+https", "milvus", "milvus+https", "postgresql", "lancedb", "chroma", "chroma+https",
    "sqlite-vec", "pinecone", "redis", "rediss",
}  # fmt: skip


def section(page: str, title: str) -> str:
    return page.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def commands(text: str) -> list[list[str]]:
    """The words of each command in the sh blocks, without `q3e-local` and comments."""
    lines = "\n".join(re.findall(r"```sh\n(.*?)```", text, re.DOTALL)).splitlines()
    return [shlex.split(re.split(r"\s{2,}# ", line)[0])[1:] for line in lines if line.startswith("q3e-local ")]


@pytest.fixture
def indexed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The index that the pages say their lines come after."""
    for page in (ENGLISH, CHINESE):
        assert "`q3e-local index examples/notes -m demo`" in page
    monkeypatch.setenv("Q3E_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    shutil.copytree(ROOT / "examples" / "notes", "examples/notes")
    assert CliRunner().invoke(main, ["index", "examples/notes", "-m", "demo", "-q"]).exit_code == 0


def run(words: list[str]) -> None:
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize(
    ("page", "title"), [(ENGLISH, "sqlite-vec"), (CHINESE, "一个文件：sqlite-vec")], ids=["en", "zh"]
)
def test_sqlite_vec(page, title, indexed, capsys):
    for words in commands(section(page, title)):
        run(words)
    (code,) = re.findall(r"```python\n(.*?)```", section(page, title), re.DOTALL)
    exec(compile(code, "page", "exec"), {})
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert all(re.fullmatch(r"0\.\d{3} .*examples/notes/.+#\d+", line) for line in lines)


def test_pinecone(indexed):
    for words in commands(section(ENGLISH, "Pinecone")):
        run(words)
    n_rows = pyarrow.parquet.read_table("notes.parquet").num_rows
    assert n_rows == len(Path("notes.jsonl").read_text(encoding="utf-8").splitlines()) > 10


@pytest.mark.parametrize(("page", "n_shown"), [(ENGLISH, 10), (CHINESE, 5)], ids=["en", "zh"])
def test_every_address_is_one(page, n_shown):
    addresses = [words[words.index("--to") + 1] for words in commands(page)]
    assert len(addresses) >= n_shown
    for text in addresses:
        assert parse(text) is not None
    # What stands before the colon in the column of addresses.
    table = "\n".join(line for line in page.splitlines() if line.startswith("| [") and "](" in line)
    schemes = set(re.findall(r"`([a-z+-]+):", table))
    assert schemes == SCHEMES
    for scheme in schemes:
        is_local = scheme in ("lancedb", "sqlite-vec", "pinecone")
        assert parse(f"{scheme}:x" if is_local else f"{scheme}://host") is not None


def test_the_versions_that_were_measured_are_those_of_the_tests():
    named = re.findall(r"`(tests/\S+)`", ENGLISH)
    assert named
    assert all((ROOT / name).is_file() for name in named)
