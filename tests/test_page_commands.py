"""The commands of pages that only name files of the reader's: they run on such files, with the models of the demo."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path

import pytest
import xlsxwriter
from command import run, write
from paths import ROOT

NOTES = ROOT / "examples" / "notes"
LINES = "预算超支多少？\n展台的钱谁出？\n"


def commands(page: str) -> list[list[str]]:
    """The words of each `q3e-local` line of the sh blocks, behind the program's name and without the comment."""
    lines = "\n".join(re.findall(r"^```sh\n(.*?)^```", page, re.DOTALL | re.MULTILINE)).splitlines()
    found = [shlex.split(re.split(r"\s{2,}#", line)[0])[1:] for line in lines if line.startswith("q3e-local ")]
    return [[str(Path(word).expanduser()) for word in words] for words in found]


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The files that the pages name, here or in the home folder, and the index "default"."""
    monkeypatch.setenv("Q3E_MODEL", "demo")
    monkeypatch.setenv("Q3E_RERANKER", "demo-reranker")
    folder = tmp_path / "here"
    for name in ("minutes", "会议纪要"):
        shutil.copytree(NOTES, folder / name)
    for name in ("notes", "笔记", "会议纪要"):
        shutil.copytree(NOTES, Path.home() / name)
    monkeypatch.chdir(folder)
    write(folder, {
        "语料.txt": LINES, "问题.txt": LINES,
        "文章.jsonl": json.dumps({"编号": "a1", "正文": "四月搬到新办公室。"}, ensure_ascii=False),
        "scifact/corpus.jsonl": '{"_id": "a", "title": "", "text": "one"}',
        "scifact/queries.jsonl": '{"_id": "1", "text": "one"}\n{"_id": "2", "text": "two"}',
        "scifact/qrels/test.tsv": "query-id\tcorpus-id\tscore\n1\ta\t1\n2\ta\t1\n",
    })  # fmt: skip
    for name in ("questions.jsonl", "问题.jsonl"):
        shutil.copy(ROOT / "docs" / "eval" / "questions.jsonl", name)
    with xlsxwriter.Workbook("评价.xlsx") as book:
        sheet = book.add_worksheet("三月")
        sheet.write_row(0, 0, ["评价", "星级"])
        sheet.write_row(1, 0, ["物流很快，包装完好", 5])
    assert run("index", NOTES, "-m", "demo", "-q").exit_code == 0


@pytest.mark.parametrize(
    "page",
    [
        f"docs/{name}{language}.md"
        for name in ("embed", "rerank", "eval", "assistants")
        for language in ("", ".zh-CN")
    ],
)
def test_commands_run(page, files):
    for words in commands((ROOT / page).read_text(encoding="utf-8")):
        result = run(*words)
        # No real model is here, and there is no network.
        is_absent = "qwen3-" in " ".join(words) and "is not on this machine" in result.stderr
        assert result.exit_code == (1 if is_absent else 0), (words, result.stderr)
