"""`q3e-local completion`: what a shell is offered, by bash itself where it is here, and in each protocol."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from command import PROGRAM, loaded_by, run, write
from world import BUNDLED

from q3e_local.cli import main
from q3e_local.cli.candidates import COMPLETE_VARIABLE
from q3e_local.cli.commands.completion import SHELLS

NEEDS_BASH = pytest.mark.skipif(shutil.which("bash") is None or os.name == "nt", reason="needs bash")


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """A folder of the user's with two indexes and a name of their own; the current folder has files."""
    write(tmp_path, {
        "q3e/config/config.toml": '[aliases]\nmy-legal = {model = "demo", dim = 64}\n',
        "q3e/data/indexes/work.q3e": "", "q3e/data/indexes/papers.q3e": "",
        "files/mine.gguf": "", "files/notes.md": "", "files/listed/a.md": "",
    })  # fmt: skip
    monkeypatch.setenv("Q3E_HOME", str(tmp_path / "q3e"))
    monkeypatch.chdir(tmp_path / "files")
    return tmp_path / "q3e"


@pytest.fixture
def answered(monkeypatch):
    """What the program answers a shell that asks about the last word of a line."""

    def answered(line: str, shell: str) -> str:
        words = line.split(" ")
        monkeypatch.setenv("COMP_WORDS", line)
        monkeypatch.setenv("COMP_CWORD", words[-1] if shell == "fish" else str(len(words) - 1))
        return SHELLS[shell](main, {}, "q3e-local", COMPLETE_VARIABLE).complete()

    return answered


@pytest.fixture
def answers(answered):
    """Type and value of each offer, in a protocol of three lines for each."""

    def answers(line: str, shell: str = "zsh") -> list[tuple[str, str]]:
        lines = answered(line, shell).splitlines()
        return [(kind, value.replace(r"\:", ":")) for kind, value in zip(lines[::3], lines[1::3], strict=True)]

    return answers


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("em", ["embed"]),
        ("embed --dim", ["--dimensions"]),
        ("embed --ba", ["--batch-tokens"]),
        ("embed --too-long ", ["truncate", "error"]),
        ("embed --format js", ["jsonl", "json"]),
        ("embed -m de", ["demo"]),
        ("search --reranker de", ["demo-reranker"]),
        ("rerank who? -m de", ["demo-reranker"]),
        ("show de", ["demo", "demo-reranker"]),
        ("embed -m my", ["my-legal"]),
        ("embed --model=my", ["--model=my-legal"]),
        ("bench -m DEMO-", ["demo-reranker"]),
        ("pull qwen3-embedding:8b-q6", ["qwen3-embedding:8b-q6_k"]),
        ("rm ", BUNDLED),
        ("search --name ", ["papers", "work"]),
        ("search --rerank-", ["--rerank-seconds"]),
        ("rer", ["rerank"]),
        ("index show w", ["work"]),
        ("index --na", ["--name"]),
        ("index notes.md --watc", ["--watch"]),
        ("similar --index p", ["papers"]),
        ("cache st", ["stats"]),
        ("service inst", ["install"]),
        ("completion ", ["bash", "zsh", "fish", "powershell"]),
    ],
)  # fmt: skip
def test_commands_options_choices_models_and_indexes_complete(line, offered, answers):
    assert answers(f"q3e-local {line}") == [("plain", value) for value in offered]


@pytest.mark.parametrize(
    "line", ["embed no", "rerank who? no", "embed -m ./mi", "embed -m mi", "embed -o ", "convert ", "import "]
)
def test_a_path_is_left_to_the_shell(line, answers):
    assert [kind for kind, _ in answers(f"q3e-local {line}")] == ["file"]


def test_a_folder_or_a_command_may_stand_behind_index(answers):
    assert answers("q3e-local index li") == [("plain", "list"), ("file", "li")]


def test_a_damaged_config_offers_nothing_and_says_nothing(home, answers):
    (home / "config" / "config.toml").write_text("[aliases")
    assert answers("q3e-local embed -m de") == [("file", "de")]


@pytest.mark.parametrize("line", ["q3e-local em", "q3e-local index ", "q3e-local embed -m de"])
def test_completing_loads_nothing_heavy(line: str) -> None:
    heavy = {"llama_cpp", "huggingface_hub", "httpx2", "rich", "psutil", "apsw", "sqlite3", "starlette"}
    heavy |= {"numpy", "orjson"} if line.endswith("em") else set()
    variables = {"COMP_WORDS": line, "COMP_CWORD": str(line.count(" ")), COMPLETE_VARIABLE: "zsh_complete"}
    assert not heavy & loaded_by(**variables)


@pytest.mark.parametrize("shell", SHELLS)
def test_every_shell_has_a_script_and_an_install_line(shell: str) -> None:
    result = run("completion", shell)
    assert (result.exit_code, result.stderr) == (0, "")
    assert "q3e-local" in result.stdout
    assert COMPLETE_VARIABLE in result.stdout
    assert f"q3e-local completion {shell}" in run("completion", "--help").stdout


def test_another_shell_is_wrong_usage() -> None:
    result = run("completion", "tcsh")
    assert result.exit_code == 2
    assert "'bash', 'zsh', 'fish', 'powershell'" in result.stderr


def test_the_powershell_protocol_has_three_lines_for_each(answers):
    """PowerShell itself does not run: few machines that run the tests have it."""
    assert answers("q3e-local embed -m my", "powershell") == [("plain", "my-legal")]
    assert answers("q3e-local embed --model=my", "powershell") == [("plain", "--model=my-legal")]


def test_the_fish_protocol_has_the_help_behind_a_tab(answered):
    assert answered("q3e-local em", "fish") == "plain,embed\tTurn texts into embeddings."


# The real bash


def bash_offers(line: str, folder: Path) -> list[str]:
    """What bash has in COMPREPLY once it has called the script's function as it does on Tab."""
    program = folder / "q3e-local"
    program.write_text("#!/bin/sh\nexec " + " ".join(f"'{part}'" for part in PROGRAM) + ' "$@"\n')
    program.chmod(0o755)
    script = folder / "completion.bash"
    script.write_text(run("completion", "bash").stdout)
    # As readline splits a line: at blanks, and at the characters of COMP_WORDBREAKS.
    last = line.replace("=", ":").replace(" ", ":").rpartition(":")[2]
    ask = (
        f'. "{script}"; function=$(complete -p q3e-local | sed "s/.*-F \\([^ ]*\\).*/\\1/")\n'
        f'COMP_LINE="$1" COMP_POINT="${{#1}}"; "$function" q3e-local "$2" "" 2>&1; printf "%s\\n" "${{COMPREPLY[@]}}"'
    )
    got = subprocess.run(
        ["bash", "--norc", "-c", ask, "bash", line, last], capture_output=True, text=True,
        env={**os.environ, "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}, check=True,
    )  # fmt: skip
    assert got.stderr == ""
    return got.stdout.splitlines()


@NEEDS_BASH
@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("q3e-local embed -m qwen3-embedding:4b-q8", ["4b-q8_0"]),  # bash took the colon for a break
        ("q3e-local embed -m qwen3-emb", [f"qwen3-embedding:{size}" for size in ("0.6b", "4b", "8b")]),
        ("q3e-local embed --model=qwen3-embedding:4b-q8", ["4b-q8_0"]),
        ("q3e-local embed --model=my", ["my-legal"]),
        ("q3e-local embed -o x.npy no", ["notes.md"]),
        ("q3e-local embed -m ./mi", ["./mine.gguf"]),
        ("q3e-local index li", ["list", "listed"]),
        ("q3e-local search --name p", ["papers"]),
    ],
)
def test_bash_completes(line: str, offered: list[str], tmp_path: Path) -> None:
    got = bash_offers(line, tmp_path)
    assert not set(offered) - set(got)
    assert {value[:2] for value in got} == {offered[0][:2]}
