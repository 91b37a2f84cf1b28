"""`q3e-local index` and `search` as people call them: what they print, where, and with which exit code."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from datetime import date, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
from command import demo, expected, run, write

from q3e_local import VectorIndex
from q3e_local.cli.commands import hits
from q3e_local.models.catalog import models_folder
from q3e_local.search import database, dates
from q3e_local.search.best_sentence import Best
from q3e_local.search.database import index_file

NOTES = {
    "outage.md": "# Outage\n\nThe payment service refused connections at 09:42. The pool was full.\n\n"
    "## Actions\n\nTomasz moves the report job PRJ-2041 to the replica.",
    "budget.md": "# 预算\n\n第三季度预算超支百分之六。云服务器费用太高。展会的展台临时加大。",
    "cat.txt": "The neighbour fed the cat. It was grey and slept all day.",
    "papers/plan.txt": "We plant beans in May.",
}


@pytest.fixture(autouse=True)
def _notes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("Q3E_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COLUMNS", "100")
    write(tmp_path / "notes", NOTES)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an index of its notes, for tests that change neither."""
    folder = tmp_path_factory.mktemp("shared")
    write(folder / "notes", NOTES)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("Q3E_HOME", str(folder / "home"))
        assert run("index", folder / "notes", "-m", "demo", "-q").exit_code == 0
    return folder


@pytest.fixture
def indexed(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(shared)
    monkeypatch.setenv("Q3E_HOME", str(shared / "home"))


@pytest.fixture
def own() -> None:
    """An index that a test may change."""
    assert run("index", "notes", "-m", "demo", "-q").exit_code == 0


def found(*arguments: object, **options: object) -> list[dict]:
    result = run("search", *arguments, **options)
    assert (result.exit_code, result.stderr) == (0, "")
    return [json.loads(line) for line in result.stdout.splitlines()]


def names(hits_: list[dict]) -> list[str]:
    return [Path(hit["file"]).name for hit in hits_]


# Indexing.


def test_the_summary_says_what_was_done(tmp_path):
    result = run("index", "notes", "-m", "demo", "-d", 64)
    assert (result.exit_code, result.stdout) == (0, "")
    lines = result.stderr.splitlines()
    assert lines[0] == "files: 4 new"
    assert re.fullmatch(r"chunks: 5, \d+ tokens in [\d.]+ s: [\d,]+ tokens/s", lines[1])
    db = tmp_path / "home" / "data" / "indexes" / "default.q3e"
    assert re.fullmatch(rf"{re.escape(str(db))} holds 4 files, 5 chunks: 64-dim vectors of demo, [\d.]+ MB", lines[2])

    (tmp_path / "notes" / "cat.txt").unlink()
    write(tmp_path / "notes", {"plan.txt": "now", "broken.pdf": b"%PDF-1.4 nothing", "p.png": b"\x89PNG\r\n\x1a\n\0"})
    result = run("index", "notes")
    assert result.exit_code == 3
    lines = result.stderr.splitlines()
    assert lines[0] == "files: 1 new, 3 unchanged, 1 removed"
    assert re.fullmatch(r"skipped 1: .*: notes/broken.pdf", lines[2])
    assert lines[3] == "passed over 1 file that no text was expected in (--verbose)"
    assert any("notes/p.png" in line for line in run("index", "notes", "--verbose").stderr.splitlines())
    (line,) = run("index", "notes", "-q").stderr.splitlines()  # nothing but errors
    assert "notes/broken.pdf" in line


def test_the_summary_as_json(tmp_path):
    write(tmp_path / "notes", {"broken.pdf": b"%PDF-1.4 nothing"})
    result = run("index", "notes", "-m", "demo", "--json", "-q", "--db", "a.q3e")
    (fields,) = map(json.loads, result.stdout.splitlines())
    assert (result.exit_code, result.stderr.count("\n")) == (3, 1)
    assert (fields["new"], fields["chunks"], fields["changed"], fields["index"]) == (4, 5, 0, "a.q3e")
    assert 50 < fields["tokens"] < 300
    assert [(Path(one["file"]).name, one["expected"]) for one in fields["skipped"]] == [("broken.pdf", False)]


@pytest.mark.parametrize("name", ["list", "show", "rm"])
def test_a_folder_with_a_commands_name(name, tmp_path):
    write(tmp_path, {f"{name}/a.txt": "text"})
    assert "files: 1 new\n" in run("index", f"./{name}", "-m", "demo").stderr


def test_an_index_keeps_its_dim_whether_its_model_is_named_or_not(monkeypatch):
    run("index", "notes", "-m", "demo", "-d", 64, "-q")
    monkeypatch.setenv("Q3E_MODEL", "qwen3-embedding:8b")  # of new ones
    for more in ([], ["-m", "demo"], ["-m", "demo", "-d", 64]):
        result = run("index", "notes", *more)
        assert (result.exit_code, result.stderr.splitlines()[0]) == (0, "files: 4 unchanged")
    result = run("index", "notes", "-d", 128)
    assert (result.exit_code, "holds 64-dim vectors of demo, not 128-dim" in result.stderr) == (1, True)


def test_documents_stand_bare_under_any_name_of_a_model(tmp_path):
    write(tmp_path / "home", {"config/config.toml": '[aliases]\nmine = {model = "demo", task = "sts", dim = 64}'})
    assert run("index", "notes", "-m", "mine", "-q").exit_code == 0
    (line,) = run("index", "show", "--json").stdout.splitlines()
    assert json.loads(line)["space"] == expected(["any"], dim=64).space
    for more in ([], ["-m", "mine"], ["-m", "demo"]):
        assert names(found("who fed the cat?", "-k", 1, *more)) == ["cat.txt"]
    assert run("index", "notes", "-m", "mine").stderr.startswith("files: 4 unchanged")
    assert run("index", "rebuild", "-m", "mine", "-q").exit_code == 0


def test_options_may_come_first():
    assert "files: 4 new\n" in run("index", "--name", "mine", "notes", "-m", "demo").stderr
    assert run("index", "list").stdout.splitlines()[1].startswith("mine ")


FAILURES = {
    "no folder": (["index", "-m", "demo"], 2, ["name a folder, as in: q3e-local index notes"]),
    "nothing at all": (["index"], 2, ["FOLDER... [OPTIONS]"]),
    "a folder that is not there": (["index", "nowhere", "-m", "demo"], 1, ["there is no folder or file", "nowhere"]),
    "a name that is a path": (["index", "notes", "--name", "a/b"], 2, ["an index's name is letters", "--db"]),
    "a name and a file": (["index", "notes", "--name", "a", "--db", "b.q3e"], 2, ["b.q3e", "not both"]),
    "too small a dim": (["index", "notes", "-m", "demo", "-d", "3"], 2, ["--dimensions must be between 32 and 256"]),
    "too few tokens": (["index", "notes", "--chunk-tokens", "31"], 2, ["--chunk-tokens", "31"]),
    "a file that is no index": (["index", "notes", "--db", "notes/cat.txt"], 1, ["notes/cat.txt"]),
    "search without an index": (
        ["search", "cat"], 1, ["there is no index named default; make it with: q3e-local index FOLDER"],
    ),
    "search in a file that is not there": (["search", "cat", "--db", "no.q3e"], 1, ["index FOLDER --db no.q3e"]),
    "search in no index": (["search", "cat", "--db", "notes/cat.txt"], 1, ["cat.txt"]),
    "no question": (["search", ""], 2, ["the question is empty"]),
    "a blank question": (["search", "-"], 2, ["the question is empty"]),
    "no date": (["search", "cat", "--since", "soon"], 2, ["'soon' is no date; give one such as", "12h"]),
    "no time ago": (["search", "cat", "--since", "0d"], 2, ["'0d' is no date"]),
    "two modes": (
        ["search", "cat", "--words-only", "--vector-only"], 2, ["--vector-only and --words-only exclude each other"],
    ),
    "a score of words": (["search", "cat", "--words-only", "--min-score", ".5"], 2, ["--min-score needs scores"]),
    "a dim that a model that is not here has not": (
        ["index", "notes", "-m", "qwen3-embedding:4b", "-d", "16"], 2, ["--dimensions must be between 32 and 2560"],
    ),
    "delete what": (["index", "rm", "-y"], 2, ["say which index to delete"]),
    "forget what": (["index", "rm", "-y", "--below", ""], 2, ["--below is empty"]),
    "both outputs": (["search", "cat", "--json", "--text"], 2, ["--json and --text exclude each other"]),
    "a file in a folder that is not there": (
        ["index", "notes", "--db", "nowhere/a.q3e"], 1, ["there is no folder nowhere to keep a.q3e in"],
    ),
    "show nothing": (["index", "show", "other"], 1, ["there is no index named other"]),
    "two names": (["index", "show", "a", "--name", "b"], 2, ["give one name"]),
    "export to nothing we know": (["index", "export", "--to", "a.xls"], 1, ["there is no index"]),
}  # fmt: skip


@pytest.mark.parametrize(("arguments", "code", "parts"), FAILURES.values(), ids=FAILURES)
def test_failures_say_what_to_do(arguments, code, parts):
    result = run(*arguments, input="\n")
    assert (result.exit_code, result.stdout) == (code, "")
    for part in parts:
        assert part in result.stderr.replace("\n", " ")


def test_a_missing_index_names_those_there_are(indexed):
    assert run("search", "cat", "--name", "other").stderr.endswith("; there are: default\n")
    assert run("search", "cat", "--name", "defualt").stderr.endswith("; did you mean default?\n")


def test_of_many_indexes_a_missing_one_names_the_nearest(tmp_path, monkeypatch):
    monkeypatch.setenv("Q3E_HOME", str(tmp_path / "q3e"))
    folder = tmp_path / "q3e" / "data" / "indexes"
    folder.mkdir(parents=True)
    for name in ("papers", "papers-2025", "papers-2026", "work", "mail"):
        (folder / f"{name}.q3e").touch()
    near = run("index", "show", "paper").stderr
    assert near.endswith("; did you mean papers, papers-2025 or papers-2026?\n")
    assert run("index", "show", "recipes").stderr.endswith("; there are 5: q3e-local index list\n")


# Searching.


@pytest.mark.parametrize("mode", [(), ("--hybrid",), ("--vector-only",), ("--words-only",), ("--exact",)])
def test_every_way_of_searching_finds_it(mode, indexed, shared):
    first = found("who fed the cat?", "-k", 2, *mode)[0]
    text = NOTES["cat.txt"]
    assert first["file"] == str(shared / "notes" / "cat.txt")
    assert first["id"] == f"{first['file']}#0"
    assert (first["text"], first["start"], first["end"]) == (text, 0, len(text))
    assert (first["line"], first["last_line"], first["page"], first["headings"]) == (1, 1, None, [])
    assert text[first["best"]["start"] : first["best"]["end"]] == "The neighbour fed the cat."
    if mode == ("--words-only",):
        assert (first["score"], first["words_rank"], first["vectors_rank"]) == (None, 1, None)
    else:
        score = demo().embed_query("who fed the cat?").vectors[0] @ expected([text]).vectors[0]
        assert first["score"] == pytest.approx(float(score), abs=1e-3)
        assert first["vectors_rank"] == 1


def test_people_are_told_the_ranks_where_the_scores_do_not_explain_the_order(tmp_path):
    texts = {
        "a.txt": "The neighbour fed the cat.",
        "b.txt": "Ticket PRJ-2041 is about something else entirely: the cellar, and its door, and a lamp.",
        "c.txt": "A cat and a neighbour slept all day.",
    }
    write(tmp_path / "few", texts)
    assert run("index", "few", "-m", "demo", "--name", "few", "-q").exit_code == 0
    asked = ("who fed the cat of the neighbour, PRJ-2041", "--name", "few", "--no-best")
    records_ = found(*asked)
    scores = [hit["score"] for hit in records_]
    assert scores != sorted(scores, reverse=True)
    lines = [line for line in run("search", *asked, "--text").stdout.splitlines() if re.match(r"\d  ", line)]
    ordinals = {1: "1st", 2: "2nd", 3: "3rd"}
    for number, (line, hit) in enumerate(zip(lines, records_, strict=True), 1):
        ranks = {"exact words": hit["letters_rank"], "words": hit["words_rank"], "meaning": hit["vectors_rank"]}
        told = ", ".join(f"{name} {ordinals[rank]}" for name, rank in ranks.items() if rank)
        assert line == f"{number}  {hit['score']:.3f} ({told})  {'few/' + Path(hit['file']).name}:1"
    (exact,) = [hit for hit in records_ if hit["file"].endswith("b.txt")]
    assert (exact["letters_rank"], exact["vectors_rank"]) == (1, 3)

    # By meaning alone the scores are the order, and say enough.
    plain = run("search", *asked, "--text", "--vector-only").stdout
    assert "(" not in plain
    assert found(*asked, "--vector-only")[0]["letters_rank"] is None
    assert "meaning" not in run("search", "cat", "--name", "few", "--text", "--words-only", "--no-best").stdout


@pytest.mark.parametrize(
    ("n", "said"),
    [(1, "1st"), (2, "2nd"), (3, "3rd"), (4, "4th"), (11, "11th"), (12, "12th"), (13, "13th"), (21, "21st"),
     (112, "112th"), (1003, "1,003rd")],
)  # fmt: skip
def test_places_are_said_as_people_say_them(n, said):
    assert hits._ordinal(n) == said


def test_chinese_is_found_and_marked(indexed):
    (hit,) = found("展会", "--words-only")
    assert (Path(hit["file"]).name, hit["headings"], hit["line"]) == ("budget.md", ["预算"], 3)
    assert hit["text"][hit["best"]["start"] : hit["best"]["end"]] == "展会的展台临时加大。"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--path", "*.md"], {"outage.md", "budget.md"}),
        (["--path", "notes/papers/**"], {"plan.txt"}),
        (["--since", "1d"], {"outage.md", "budget.md", "plan.txt"}),
        (["--since", "2001-01-01"], {"outage.md", "budget.md", "plan.txt"}),
        (["--since", f"{date.today() - timedelta(days=1)}"], {"outage.md", "budget.md", "plan.txt"}),
        (["--since", (datetime.now() + timedelta(hours=1)).isoformat()], set()),
    ],
)
def test_filters(options, expected, tmp_path):
    os.utime(tmp_path / "notes" / "cat.txt", (0, 0))
    run("index", "notes", "-m", "demo", "-q")
    result = run("search", "anything", "-k", 10, *options, "--json")
    assert {Path(json.loads(line)["file"]).name for line in result.stdout.splitlines()} == expected
    assert result.stderr == ("" if expected else "nothing was found; look without --since\n")


def test_the_instruction_changes_the_question(indexed):
    scores = [
        [hit["score"] for hit in found("beans", "--vector-only", *more)]
        for more in ([], ["--task", "sts"], ["--instruction", "Find the gardener"])
    ]
    assert scores[0] != scores[1] != scores[2]


@pytest.mark.parametrize(
    "question",
    [
        "'; DROP TABLE chunks; --",
        '" OR 1=1',
        "NEAR(a b)",
        "*",
        "beans AND (",
        "\\",
        "%_%",
        "beans " * 2000,
        "🫘",
        "\0x",
    ],
)
@pytest.mark.parametrize("mode", ["--hybrid", "--words-only", "--vector-only"])
def test_any_question_is_only_a_question(question, mode, indexed):
    result = run("search", question, mode)
    assert result.exit_code == 0
    assert len(found("cat", "-k", 10)) == 5


@pytest.mark.parametrize("arguments", [["-"], []])
def test_the_question_from_stdin(arguments, indexed):
    assert names(found("-k", 1, *arguments, input="who fed the cat?\n")) == ["cat.txt"]


def test_a_question_may_be_several_words(indexed):
    assert names(found("who", "fed", "the", "cat?", "-k", 1)) == ["cat.txt"]


def test_text_for_people(indexed):
    result = run("search", "who fed the cat?", "-k", 1, "--text")
    assert re.fullmatch(
        r"1  0\.\d{3}  notes/cat.txt:1\n   »The neighbour fed the cat.« It was grey and slept all day.\n",
        result.stdout,
    )
    result = run("search", "PRJ-2041", "--words-only", "--text", "--no-best")
    assert result.stdout == (
        "1  words  notes/outage.md:7  Outage > Actions\n   Tomasz moves the report job PRJ-2041 to the replica.\n"
    )


def test_explain_says_how(indexed):
    lines = run("search", "who fed the cat?", "--explain").stderr.splitlines()
    assert lines[0].startswith("demo: kernels")
    assert any(line.startswith("demo: n_threads") for line in lines)
    assert "exact: compared the full vectors of 5 chunks" in lines
    assert re.fullmatch(r"best sentences: \d by words, \d by meaning", lines[-1])


@pytest.mark.skipif(sys.platform == "win32", reason="names that Windows has not")
def test_a_hostile_name_steers_no_terminal(tmp_path):
    write(tmp_path / "notes", {"evil\x1b[31m\n\u202egpj.md": "# Head\n\nzebra crossing"})
    result = run("index", "notes", "-m", "demo", "--verbose")
    shown = run("search", "zebra", "--text", "--words-only").stdout
    assert shown.startswith("1  words  notes/evil [31m  gpj.md:3")
    assert not set(shown + result.output + run("index", "show", "--files").output) & set("\x1b\x07\u202e")
    (hit,) = found("zebra", "--words-only")
    assert hit["file"].endswith("evil\x1b[31m\n\u202egpj.md")


@pytest.mark.parametrize("options", [[], ["--words-only"]])
def test_a_search_opens_its_index_once(options, indexed, monkeypatch):
    opened = []
    monkeypatch.setattr(database, "IndexFile", lambda *given: opened.append(given) or index_file.IndexFile(*given))
    assert names(found("who fed the cat?", *options))[0] == "cat.txt"
    assert len(opened) == 1


def test_words_alone_need_no_model(indexed, monkeypatch):
    program = (
        "import sys; from q3e_local.cli import main\n"
        "try:\n    main(['search', 'cat', '--words-only'])\nexcept SystemExit:\n    pass\n"
        "print(*sys.modules, file=sys.stderr)"
    )
    got = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert json.loads(got.stdout)["text"] == NOTES["cat.txt"]
    assert not {"llama_cpp", "huggingface_hub", "rich", "pyarrow", "watchfiles", "pypdf"} & set(got.stderr.split())


def test_a_model_that_is_not_here_is_said(tmp_path):
    with VectorIndex("own.q3e", dim=32) as index:
        index.add_vectors(["a text"], np.eye(1, 32, dtype=np.float32), ["a"])
    result = run("search", "text", "--db", "own.q3e")
    assert (result.exit_code, "search it with --words-only" in result.stderr) == (2, True)
    assert found("text", "--db", "own.q3e", "--words-only")[0]["id"] == "a"

    model = tmp_path / "moved.gguf"
    model.write_bytes((models_folder() / "demo.gguf").read_bytes())
    assert run("index", "notes", "-m", model, "--db", "moved.q3e", "-q").exit_code == 0
    model.unlink()
    result = run("search", "cat", "--db", "moved.q3e")
    assert (result.exit_code, f"256-dim vectors of {model}, and that model cannot be" in result.stderr) == (1, True)
    assert "say where it is with --model, or search without it: --words-only" in result.stderr
    assert names(found("who fed the cat?", "--db", "moved.q3e", "-m", "demo", "-k", 1)) == ["cat.txt"]


def test_an_empty_index(tmp_path):
    write(tmp_path, {"empty/a.txt": ""})
    assert "files: 1 new\n" in run("index", "empty", "-m", "demo").stderr
    result = run("search", "cat")
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr == "the index is empty; index a folder that has text in it\n"


# Indexes as a whole.


def test_list_show_and_rm(own, tmp_path):
    (line,) = run("index", "list", "--json").stdout.splitlines()
    facts = json.loads(line)
    assert (facts["name"], facts["model"], facts["dim"], facts["files"], facts["chunks"]) == (
        "default",
        "demo",
        256,
        4,
        5,
    )
    (line,) = run("index", "show", "--json", "--files").stdout.splitlines()
    assert json.loads(line)["kinds"] == {"markdown": 2, "text": 2}
    shown = run("index", "show", "--files").stdout
    assert "256-dim vectors of demo" in shown
    assert "notes/cat.txt" in shown

    assert run("index", "rm", "--below", "elsewhere", "--yes").exit_code == 1
    result = run("index", "rm", "--below", "notes/papers", input="")
    assert (result.exit_code, "give --yes" in result.stderr) == (2, True)
    assert run("index", "rm", "--below", "notes/papers", "--yes").stdout == "forgot 1 file\n"
    assert run("index", "rm", "default", input="n\n").exit_code == 0
    assert len(found("cat", "-k", 10)) == 4
    assert run("index", "rm", "default", "--yes").stdout.startswith("deleted ")
    assert list((tmp_path / "home" / "data" / "indexes").iterdir()) == []
    assert run("index", "list").stderr == "there is no index yet; make one with: q3e-local index FOLDER\n"


@pytest.mark.skipif(sys.platform == "win32", reason="quotes of another kind")
def test_hints_name_the_index_and_can_be_pasted(tmp_path):
    write(tmp_path, {"my docs/a.txt": "a"})
    assert run("index", "my docs", "--name", "work", "-m", "demo", "-q").exit_code == 0
    result = run("index", "my docs", "--name", "work", "-d", 64)
    assert result.stderr.splitlines()[-1].endswith("q3e-local index rebuild --name work -d 64")
    (tmp_path / "my docs").rename(tmp_path / "away")
    hint = run("index", "my docs", "--name", "work").stderr.splitlines()[-1].split("q3e-local ")[1]
    assert hint == f"index rm --name work --below '{tmp_path}/my docs'"
    assert run(*shlex.split(hint), "-y").stdout == "forgot 1 file\n"
    assert "q3e-local index FOLDER --db 'no such'" in run("search", "cat", "--db", "no such").stderr


@pytest.mark.parametrize("content", [b"", b"no index at all"])
def test_rm_deletes_what_cannot_be_opened(content, tmp_path):
    write(tmp_path, {"a.q3e": content, "notes.db": content})
    result = run("index", "rm", "--db", "a.q3e", input="n\n")
    assert (result.exit_code, "a.q3e - it cannot be opened: " in result.stderr) == (0, True)
    assert run("index", "rm", "--db", "a.q3e", "-y").exit_code == 0
    assert run("index", "rm", "--db", "notes.db", "-y").exit_code == 1
    assert not list(tmp_path.glob("a.q3e*"))
    assert not list(tmp_path.glob("*.lock"))


def test_no_lock_is_left_where_no_index_was_made(tmp_path):
    assert run("index", "notes", "--name", "w16", "-m", "demo", "-d", 16).exit_code == 2
    assert run("index", "notes", "--db", "notes/cat.txt", "-m", "demo").exit_code == 1
    assert not list(tmp_path.rglob("w16*"))
    assert not Path("notes/cat.txt.lock").exists()
    run("index", "notes", "-m", "demo", "-q")
    if os.name != "nt":
        (lock,) = tmp_path.rglob("default.q3e.lock")
        assert lock.stat().st_mode & 0o777 == 0o600


def test_a_stray_file_stops_no_list(own, tmp_path):
    write(tmp_path / "home/data/indexes", {"my notes.q3e": "x", "._default.q3e": "x"})
    result = run("index", "list")
    assert (result.exit_code, result.stdout.splitlines()[1].split()[0]) == (0, "default")
    assert [Path(line.split(" is left out")[0]).name for line in result.stderr.splitlines()] == [
        "._default.q3e", "my notes.q3e"
    ]  # fmt: skip


def test_rebuild_of_nothing_says_what_to_give(own):
    result = run("index", "rebuild")
    assert (result.exit_code, "q3e-local index rebuild -m MODEL, or -d DIM" in result.stderr) == (2, True)
    assert run("index", "rebuild", "-d", 256).stderr.startswith("there is nothing to do")


def test_a_missing_folder_does_not_stop_the_others(tmp_path):
    result = run("index", "nowhere", "notes", "-m", "demo")
    assert result.exit_code == 1
    assert result.stderr.splitlines()[0] == "files: 4 new"
    assert result.stderr.splitlines()[-1] == f"Error: there is no folder or file {tmp_path / 'nowhere'}"


@pytest.mark.parametrize(
    ("glob", "n_files"), [("/papers/*.txt", 1), ("/*.txt", 1), ("{}/notes/*.md", 2), ("*.xyz", 0)]
)
def test_globs(glob, n_files, tmp_path):
    result = run("index", "notes", "-m", "demo", "--glob", glob.format(tmp_path.as_posix()))
    assert result.exit_code == 0
    if n_files:
        assert result.stderr.splitlines()[0] == f"files: {n_files} new"
    else:
        assert "no file matches --glob '*.xyz' in notes" in result.stderr


def test_an_empty_folder_is_told(tmp_path):
    (tmp_path / "empty").mkdir()
    assert "there is no file to read in empty" in run("index", "empty", "-m", "demo").stderr


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="names are Unicode there")
def test_json_of_a_name_that_is_not_utf_8(tmp_path):
    (tmp_path / "notes" / os.fsdecode(b"\xff.txt")).write_text("text")
    result = run("index", "notes", "-m", "demo", "--json")
    assert result.exit_code == 3
    assert json.loads(result.stdout)["skipped"][0]["file"].endswith("/?.txt")


def test_hits_below_a_score_are_left_out(indexed):
    scores = [hit["score"] for hit in found("beans", "--vector-only", "-k", 10)]
    above = found("beans", "--vector-only", "-k", 10, "--min-score", scores[2])
    assert [hit["score"] for hit in above] == scores[:3]
    assert "look without --min-score" in run("search", "beans", "--min-score", 1).stderr


def test_texts_with_an_instruction_are_searched_by_anyone(tmp_path):
    with VectorIndex(tmp_path / "mine.q3e", demo(), instruction="Find the gardener") as index:
        index.add(["roses are cut in March"])
    result = run("search", "--db", tmp_path / "mine.q3e", "--json", "roses")
    assert (result.exit_code, json.loads(result.stdout)["text"]) == (0, "roses are cut in March")


def test_rebuild_with_another_dim(own):
    result = run("index", "rebuild", "-d", 64)
    assert result.exit_code == 0
    assert "holds 64-dim vectors of demo" in result.stderr
    score = demo().embed_query("who fed the cat?", 64).vectors[0] @ expected([NOTES["cat.txt"]], dim=64).vectors[0]
    assert found("who fed the cat?")[0]["score"] == pytest.approx(float(score), abs=1e-3)
    assert "files: 4 unchanged" in run("index", "notes").stderr
    assert run("index", "notes", "-d", 128).exit_code == 1


@pytest.mark.parametrize("suffix", ["jsonl", "npy", "parquet"])
def test_export(suffix, own, tmp_path):
    result = run("index", "export", "--to", f"all.{suffix}")
    assert result.exit_code == 0
    if suffix == "parquet":
        rows = pyarrow.parquet.read_table("all.parquet").to_pylist()
        vectors = [row.pop("embedding") for row in rows]
        assert b"demo" in pyarrow.parquet.read_schema("all.parquet").metadata.values()
    else:
        name = "all.jsonl" if suffix == "jsonl" else "all.npy.rows.jsonl"
        rows = [json.loads(line) for line in Path(name).read_text(encoding="utf-8").splitlines()]
        vectors = np.load("all.npy") if suffix == "npy" else [row.pop("embedding") for row in rows]
        assert suffix == "jsonl" or [row.pop("row") for row in rows] == list(range(5))
    assert set(rows[0]) == {"id", "file", "text", "headings", "page", "line", "last_line", "start", "end"}
    seen = [" > ".join(row["headings"]) + "\n" + row["text"] if row["headings"] else row["text"] for row in rows]
    assert np.sum(np.array(vectors, np.float32) * expected(seen).vectors, axis=1).min() > 0.9999
    again = run("index", "export", "--to", f"all.{suffix}")
    assert (again.exit_code, "exists; replace it with --force" in again.stderr) == (1, True)
    assert run("index", "export", "--to", f"all.{suffix}", "--force", "-q").stderr == ""
    assert run("index", "export", "--to", "all.xls").exit_code == 2
    assert not list(tmp_path.glob(".*.partial"))


# Dates.


def test_dates_as_people_write_them():
    def day(text: str) -> tuple[int, ...]:
        return dates.moment(text).timetuple()[:5]

    assert day("2026/11/01") == day("2026-11-01") == (2026, 11, 1, 0, 0)
    assert (day("2019"), day("2026-11")) == ((2019, 1, 1, 0, 0), (2026, 11, 1, 0, 0))
    assert day("2026-11-01t09:30") == (2026, 11, 1, 9, 30)
    yesterday = date.today() - timedelta(days=1)
    assert day("Yesterday") == (yesterday.year, yesterday.month, yesterday.day, 0, 0)
    ago = datetime.now().astimezone() - dates.moment("30min")
    assert round(ago.total_seconds() / 60) == 30


# How a passage is shown.


@pytest.mark.parametrize(
    ("text", "best", "shown"),
    [
        ("One. Two. Three.", (5, 9), "One. »Two.« Three."),
        ("a line of sixty characters or more that was wrapped there, in\na mail", None, None),
        ("第一行的文字很多，超过了六十个字节，所以在这里换行\n还没有结束。", None, None),
        ("    code = call(argument_one, argument_two, argument_three)\nreturn code", None, ...),
        ("x" * 2000, (900, 1000), "…" + "x" * 160 + "»" + "x" * 100 + "«" + "x" * 340 + "…"),
        ("what a\x1b[2Jtext\x07", None, "what a [2Jtext "),
        ("x" * 2000, (0, 1500), "»" + "x" * 600 + "«…"),
    ],
)
def test_a_passage_flows_and_is_shortened_around_the_best(text, best, shown):
    span = None if best is None else Best(*best)
    got = hits._passage(text, span, is_plain=True).plain
    if shown is None:
        shown = text.replace("\n", "" if text[0] > "z" else " ")
    assert got == (text if shown is ... else shown)


@pytest.mark.usefixtures("indexed")
def test_a_model_that_was_named_and_cannot_be_used_is_the_one_that_is_blamed() -> None:
    result = run("search", "cat", "-m", "nope")
    assert result.exit_code == 2
    assert "vectors of demo, and the model nope cannot be used: there is no model 'nope'" in result.stderr
