"""Every q3e-local command that the READMEs and the pages of docs/ show is run, and gives what they show."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from command import expected
from fake_service import served
from paths import ROOT

from q3e_local.cli import main
from q3e_local.server.local.local_service import LocalService
from q3e_local.server.settings import ServerSettings

READMES = ("README.md", "README.zh-CN.md")
PAGES = (*READMES, "docs/models.md", "docs/models.zh-CN.md")


def blocks(readme: str, language: str) -> list[str]:
    text = (ROOT / readme).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def sessions(readme: str) -> list[tuple[str, list[str]]]:
    """Each `$ command` of the console blocks with the lines shown under it."""
    found: list[tuple[str, list[str]]] = []
    for block in blocks(readme, "console"):
        for line in block.splitlines():
            if line.startswith("$ "):
                found.append((line[2:], []))
            else:
                found[-1][1].append(line)
    return found


def shown(line: str) -> str:
    """A pattern for a line: times and speeds differ from run to run."""
    return re.sub(r"in\\ [\d.\\]+\\ s:\\ [\d,]+", r"in [\\d.]+ s: [\\d,]+", re.escape(line))


def made_before(readme: str, command: str) -> list[str]:
    """The lines of the same page that make files, and what a search or an evaluation needs: those that index."""
    lines = [line for block in blocks(readme, "sh") for line in block.splitlines()]
    needs_index = command.startswith(("q3e-local search ", "q3e-local eval "))
    indexes = [each for each, _ in sessions(readme) if needs_index and each.startswith("q3e-local index ")]
    return [line for line in lines if line.startswith(("mkdir ", "cp ", "iconv "))] + indexes


def roughly(line: str) -> str:
    """A pattern for a line whose scores may differ in the last digits on another machine."""
    return re.sub(r"(\\ )*-?\d+\\\.\d+", r"\\s*-?\\d+\\.\\d+", re.escape(line).replace("\\-", "-"))


def is_near(line: str, other: str, by: float = 0.002) -> bool:
    """Whether two lines differ in scores alone, and no score by more than this, as they do between CPUs."""
    line, other = line.replace("+", ""), other.replace("+", "")
    numbers = [[float(number) for number in re.findall(r"-?\d+\.\d{3,}", each)] for each in (line, other)]
    is_same = re.fullmatch(roughly(line), other) and len(numbers[0]) == len(numbers[1]) > 0
    return bool(is_same) and all(abs(a - b) <= by for a, b in zip(*numbers, strict=True))


def is_measured_alike(line: str, other: str) -> bool:
    """Whether two lines of an evaluation have about the same measures: an answer may change places between CPUs.

    Seconds, which differ from run to run, are a number with four decimals before the bytes and the column.
    """
    untimed = (re.sub(r"\d+\.\d{4}(?= +[\d,]+  )", "", each) for each in (line, other))
    return is_near(*untimed, by=0.03)


def is_evaluation(command: str) -> bool:
    return command.startswith("q3e-local eval ") and "--make-questions" not in command


# Pages of docs/ with sessions, and how exactly what they show is compared.
DOCS = {
    "docs/embed.md": shown, "docs/embed.zh-CN.md": shown, "docs/eval.md": shown, "docs/eval.zh-CN.md": shown,
    "docs/jobs.md": roughly, "docs/rerank.zh-CN.md": shown,
}  # fmt: skip
SESSIONS = [
    (made_before(page, command), command, lines, how)
    for page, how in {**dict.fromkeys(READMES, shown), **DOCS}.items()
    for command, lines in sessions(page)
]


@pytest.mark.parametrize(("before", "command", "lines", "shown"), SESSIONS)
def test_a_command_gives_what_the_readme_shows(before, command, lines, shown, tmp_path, monkeypatch):
    for folder in ("examples", "docs/jobs", "docs/embed", "docs/eval"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    for each in before:
        if each.startswith("q3e-local "):
            CliRunner().invoke(main, shlex.split(each)[1:])
        else:
            subprocess.run(each, shell=True, check=True)
    command, _, cut = command.partition(" | tail -n 6")[0].partition(" | cut -c 1-")
    program, *arguments = shlex.split(command)
    assert program == "q3e-local"
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    got = [line[: int(cut or 10_000)] for line in result.output.splitlines()]
    for line in lines:
        near = is_measured_alike if is_evaluation(command) else is_near
        assert any(re.fullmatch(shown(line), each) or near(line, each) for each in got), (
            f"{line!r} is not in the output:\n" + "\n".join(got)
        )


def plain_commands(readme: str) -> list[str]:
    """The `q3e-local` lines of the sh blocks, without their comments."""
    lines = "\n".join(blocks(readme, "sh")).splitlines()
    # `serve` runs until it is stopped: the server's own tests run it.
    return [line.split(" #")[0].strip() for line in lines if line.startswith("q3e-local ") and " serve" not in line]


@pytest.mark.parametrize("command", dict.fromkeys(command for page in PAGES for command in plain_commands(page)))
def test_a_command_without_output_is_sound(command, tmp_path, monkeypatch):
    monkeypatch.setenv("Q3E_HOME", str(tmp_path))
    result = CliRunner().invoke(main, shlex.split(command)[1:])
    # There is no network here: what would download says that the model is not on this machine.
    downloads = "qwen3-" in command and not command.startswith("q3e-local show ")
    assert result.exit_code == (1 if downloads else 0), result.output
    assert result.exit_code == 0 or "is not on this machine" in result.stderr


@pytest.mark.parametrize(
    "code", [block for page in (*READMES, "docs/rerank.zh-CN.md") for block in blocks(page, "python")]
)
def test_the_python_shown_runs(code, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "README", "exec"), {})


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    settings = {"models": ("demo",)}
    with served(LocalService(ServerSettings(**settings)), **settings) as http:
        yield str(http.base_url).rstrip("/")


QUESTION, TEXTS = "who fed the cat?", ["the neighbour fed the cat", "prices fell in May"]
# How a client embeds a question, and texts, with what its three lines have made.
USES: dict[str, Callable[[dict[str, Any]], tuple[Any, Any]]] = {
    "langchain_ollama": lambda made: (
        made["queries"].embed_query(QUESTION),
        made["documents"].embed_documents(TEXTS),
    ),
    "llama_index.embeddings.ollama": lambda made: (
        made["queries"].get_query_embedding(QUESTION),
        made["documents"].get_text_embedding_batch(TEXTS),
    ),
    "chromadb.utils.embedding_functions": lambda made: (made["queries"]([QUESTION])[0], made["documents"](TEXTS)),
    "openai": lambda made: (
        made["client"].embeddings.create(model="demo-query", input=QUESTION).data[0].embedding,
        [each.embedding for each in made["client"].embeddings.create(model="demo", input=TEXTS).data],
    ),
}


@pytest.mark.parametrize("lines", blocks("README.md", "py"))
def test_the_three_lines_of_a_client_work(lines, address, monkeypatch):
    """Run for those clients that are installed here; for the others, that they are three lines of Python."""
    monkeypatch.setenv("NO_PROXY", "*")
    assert len([line for line in lines.splitlines() if line]) == 3
    code = lines.replace("http://127.0.0.1:11434", address).replace("qwen3-embedding:4b", "demo")
    compiled, module = compile(code, "README", "exec"), lines.split()[1]
    made: dict[str, Any] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # other projects' own
        pytest.importorskip(module, exc_type=ModuleNotFoundError)
        exec(compiled, made)
        question, texts = USES[module](made)
    assert np.allclose(question, expected([QUESTION], kind="query").vectors[0], atol=1e-5)
    assert np.allclose(texts, expected(TEXTS).vectors, atol=1e-5)
    if "client" in made:
        made["client"].close()


def test_both_readmes_have_the_same_lines_for_clients():
    for language in ("py", "ini"):
        assert blocks("README.md", language) == blocks("README.zh-CN.md", language)


def test_make_demo_runs_a_command_that_the_readme_shows():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    (by_make,) = re.findall(r"^\t@\$\(BIN\)/(q3e-local .+)$", makefile, re.MULTILINE)
    assert by_make in [command for command, _ in sessions("README.md")]


@pytest.mark.parametrize("readme", READMES)
def test_the_first_screen_installs_indexes_asks_and_serves(readme):
    """What installs comes first, and of that the line that works without a release: from the folder of the source."""
    text = (ROOT / readme).read_text(encoding="utf-8")
    first = text.partition("\n## ")[0]
    places = [
        first.index(part)
        for part in (
            "python3 -m venv .venv",
            '\npip install ".[all]"',
            'pip install "q3e-local[all]"',
            "$ q3e-local index ",
            "$ q3e-local search ",
            "q3e-local serve",
            "curl ",
        )
    ]
    assert places == sorted(places)
    assert len(re.findall(r"^- \*\*", first[places[-1] :], re.MULTILINE)) == 5
    assert '--editable ".[all]"' in (ROOT / "Makefile").read_text(encoding="utf-8")


@pytest.mark.parametrize("readme", READMES)
def test_commands_to_set_up_by_hand_are_those_of_make(readme):
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    by_hand = "\n".join(blocks(readme, "sh"))
    for part in (
        "-m venv",
        "--constraint constraints.txt --editable",
        "ruff format --check .",
        "ruff check .",
        "mypy",
        "-m pytest",
    ):
        assert part in makefile
        assert part.replace("--constraint", "-c").replace("--editable", "-e") in by_hand, part
