"""Each script of examples/ runs as it stands, and prints what it promises."""

from __future__ import annotations

import re
import runpy
import shlex
import subprocess
import sys

import numpy as np
import pytest
from command import expected, run
from fake_service import served
from paths import ROOT

from q3e_local.server.local.local_service import LocalService
from q3e_local.server.settings import ServerSettings

SCRIPTS = sorted(path.name for path in (ROOT / "examples").glob("*.py"))


@pytest.fixture
def output(tmp_path, monkeypatch, capsys):
    """`output("embed.py", "an argument")`: the lines that the script prints, run in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def lines(name: str, *arguments: str) -> list[str]:
        monkeypatch.setattr(sys, "argv", [name, *arguments])
        capsys.readouterr()
        runpy.run_path(
            str(ROOT / "examples" / name), run_name="example"
        )  # a model process would run `__main__` again
        return capsys.readouterr().out.splitlines()

    return lines


def test_embed(output):
    result = expected(["The budget was approved with a reserve of ten percent.", "预算获得批准，预留百分之十。"])
    got = output("embed.py")
    assert [line.split(" ", 1)[0] for line in got] == [str(n) for n in result.prompt_tokens]
    for line, vector in zip(got, result.vectors, strict=True):
        numbers = line.partition("[")[2].partition("]")[0].split()
        assert np.allclose([float(number) for number in numbers], vector[:3], atol=2e-3)


def test_queries_and_documents(output):
    got = [line.rpartition("  (")[0] for line in output("queries_and_documents.py")]
    assert got == [
        "when does the office move?  ->  The office moves in April.",
        "how long was checkout down?  ->  Checkout was down for forty minutes.",
    ]


def test_mrl_cut(output):
    assert output("mrl_cut.py") == [
        "256 numbers take 1024 bytes, 64 take 256",
        "a stored vector can be cut later, with the same result: True",
    ]


def test_search_folder(output):
    assert run("index", ROOT / "examples" / "notes", "-m", "demo", "--db", "notes.q3e").exit_code == 0
    checkout, moving = output("search_folder.py"), output("search_folder.py", "办公室什么时候搬？")
    assert len(checkout) == len(moving) == 3
    assert "notes-en-outage.md:19  Checkout outage on 14 March: review" in checkout[0]
    assert "notes-zh-office-move.md:" in moving[0]
    assert any("notes-zh-office-move.md:3  办公室搬迁：第二次筹备会" in line for line in moving)


def test_evaluate(output):
    assert run("index", ROOT / "examples" / "notes", "-m", "demo", "--db", "notes.q3e").exit_code == 0
    whole, half = output("evaluate.py", str(ROOT / "docs" / "eval" / "questions.jsonl"))
    dims, scores = zip(*(re.findall(r"^dim (\d+): nDCG@10 (0\.\d+)", line)[0] for line in (whole, half)), strict=True)
    assert dims == ("256", "128")
    assert 0.7 < float(scores[1]) < float(scores[0]) < 0.9
    assert half.endswith(" no difference that 32 questions can show")


def test_evaluate_without_its_index_or_its_questions_is_a_sentence(output):
    for arguments, said in (
        ((str(ROOT / "docs" / "eval" / "questions.jsonl"),), "notes.q3e"),
        (("nowhere.jsonl",), "nowhere.jsonl"),
    ):
        with pytest.raises(SystemExit) as stopped:
            output("evaluate.py", *arguments)
        assert re.match(f"Error: .*{said}", str(stopped.value.code))


def test_openai_client(output, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "*")
    settings = {"models": ("demo",)}
    with served(LocalService(ServerSettings(**settings)), **settings) as http:
        got = output("openai_client.py", str(http.base_url).rstrip("/"))
    n_tokens = sum(expected(["The budget was approved.", "预算获得批准。"]).prompt_tokens)
    assert got == [f"2 documents of 256 numbers, {n_tokens} tokens", "1 question of 256 numbers"]


@pytest.mark.parametrize("name", ["assistants.md", "assistants.zh-CN.md"])
def test_assistant_client(name, tmp_path):
    notes = ROOT / "examples" / "notes"
    assert run("index", notes, "-m", "demo", "--db", tmp_path / "notes.q3e").exit_code == 0
    page = (ROOT / "docs" / name).read_text(encoding="utf-8")
    line, _, shown = page.partition("$ python ")[2].partition("\n```")[0].partition("\n")
    script, *question = shlex.split(line)
    # A process, because the client hands its stderr on to the server, and a test's stderr is no file.
    command = [sys.executable, ROOT / script, *question]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, encoding="utf-8", check=True)
    got = done.stdout.strip("\n").replace(notes.as_posix(), "/home/you/examples/notes")
    score = r"score \d\.\d{3}"
    assert re.sub(score, "score", got) == re.sub(score, "score", shown)


def test_every_script_is_run_here_and_is_short():
    tested = {name.removeprefix("test_") + ".py" for name in globals() if name.startswith("test_")}
    assert set(SCRIPTS) <= tested
    for name in SCRIPTS:
        lines = (ROOT / "examples" / name).read_text(encoding="utf-8").splitlines()
        assert sum(bool(line) for line in lines) <= 12, name
