"""What jobs take, and what they say of it: files, lines, ids, indexes, and options that would do nothing."""

from __future__ import annotations

import json

import numpy as np
import openpyxl
import pytest
from command import demo, expected, run, write
from job_texts import LINES, index, npy, objects, scores, table

import q3e_local
from q3e_local.files import data_folder
from q3e_local.search.database.records import Chunk


def test_similar_compares_what_is_in_files_and_says_so(folder):
    write(folder, {"a.md": LINES[0], "b.md": LINES[1], "home/x": ""})
    result = run("similar", "a.md", "b.md")
    assert (result.stdout, "comparing what is in a.md, b.md" in result.stderr) == (f"{scores()[0, 1]:.4f}\n", True)
    assert "--text" in result.stderr
    assert "home is a folder too; for the texts in it give --file home" in run("similar", "home", "b.md").stderr
    assert "comparing" not in run("similar", "--lines", "a.md", "b.md").stderr
    np.save("x.npy", expected(LINES[:2]).vectors)
    assert run("similar", "x.npy").stderr == ""
    words = run("similar", "--text", "a.md", "--text", "b.md")
    assert float(words.stdout) == pytest.approx(scores(["a.md", "b.md"])[0, 1], abs=1e-4)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("x.csv", "with --csv COLUMN each row of x.csv is one"),
        ("x.TSV", "with --csv COLUMN each row of x.TSV is one"),
        ("x.xlsx", "with --csv COLUMN each row of x.xlsx is one"),
        ("x.jsonl", "with --jsonl FIELD each line of x.jsonl is one"),
        ("x.md", "with --lines each line of x.md is one"),
    ],
)
def test_one_text_comes_with_the_option_that_makes_many_of_its_file(folder, name, hint):
    write(folder, {name: "text\n" + "\n".join(LINES)})
    if name == "x.xlsx":
        workbook = openpyxl.Workbook()
        workbook.active.append(["text"])
        workbook.save(name)
    result = run("duplicates", name)
    assert (result.exit_code, hint in result.stderr) == (1, True), result.stderr


def test_lines_are_those_of_the_file_whatever_the_ids_are(folder):
    rows = "".join(f'{{"id": "{name}", "t": "{text}"}}\n' for name, text in zip("abcd", LINES, strict=False))
    write(folder, {"x.jsonl": rows.replace('"a"', '"talk:7"'), "phrases.txt": LINES[0]})
    found = objects("match", "x.jsonl", "phrases.txt", "--jsonl", "t", "--id", "id")
    assert [(record["line"], record["id"]) for record in found] == [(1, "talk:7"), (2, "b"), (3, "c"), (4, "d")]
    (chapter,) = objects("cluster", "--chapters", "x.jsonl", "--jsonl", "t", "--id", "id", "-k", "1")
    assert (chapter["first_line"], chapter["last_line"], chapter["first"]) == (1, 4, "talk:7")
    write(folder, {"x.csv": "id,t\n\n" + "".join(f'talk:7,"{text}\nmore"\n' for text in LINES[:2])})
    found = objects("match", "x.csv", "phrases.txt", "--csv", "t", "--id", "id")
    assert [record["line"] for record in found] == [3, 5]


def test_whole_files_and_vectors_have_no_lines_and_vectors_are_one_transcript(folder):
    write(folder, {"n/a.txt": LINES[0], "n/b.txt": LINES[1]})
    found = objects("cluster", "--chapters", "n")
    lines = [(record["source"], record["first_line"], record["last_line"]) for record in found]
    assert lines == [("n/a.txt", None, None), ("n/b.txt", None, None)]
    assert table(run("cluster", "--chapters", "n", "--format", "csv").stdout)[1]["source"] == "n/b.txt"
    shown = run("cluster", "--chapters", "n", "--format", "table").stdout.split("\n")[0].split()
    assert shown == ["chapter", "source", "first", "last", "score", "central"]
    run("embed", "n", "-o", "x.npy")
    (chapter,) = objects("cluster", "--chapters", "x.npy", "-k", "1")
    assert (chapter["source"], chapter["size"], chapter["first_line"]) == ("x.npy", 2, None)


def test_a_chapter_of_an_index_ends_with_the_last_line_of_its_last_chunk(folder):
    index(folder / "x.q3e", [Chunk(LINES[0], line=1, last_line=4), Chunk(LINES[1], line=5, last_line=9)])
    (chapter,) = objects("cluster", "--chapters", "x.q3e", "-k", "1")
    assert (chapter["first_line"], chapter["last_line"]) == (1, 9)


def test_phrases_are_the_same_by_their_characters_and_rows_by_their_numbers(folder):
    npy(folder / "two.npy", expected(LINES[:2]).vectors, f"q3e1-{demo().engine.digest[:16]}-256-plain")
    write(folder, {"heard.txt": LINES[0], "cafe.txt": "caf\u00e9\ncafe\u0301\n预算\n"})
    (found,) = objects("match", "heard.txt", "two.npy")
    assert found["second_score"] == pytest.approx(scores()[0, 1], abs=1e-5)
    result = run("match", "heard.txt", "cafe.txt", "--json")
    assert "1 phrase there more than once" in result.stderr
    assert "one of 2 phrases" in result.stderr


def test_a_file_of_clusters_has_every_text_and_says_which_are_central(folder):
    write(folder, {"lines.txt": "\n".join(LINES)})
    assert run("cluster", "--lines", "lines.txt", "-k", "2", "--central", "1", "-o", "t.csv").exit_code == 0
    found = table((folder / "t.csv").read_text(encoding="utf-8"))
    assert sorted(row["text"] for row in found) == sorted(LINES)
    assert [row["cluster"] for row in found if row["central"]] == ["1", "2"]
    shown = run("cluster", "--lines", "lines.txt", "-k", "2", "--central", "1", "--format", "table").stdout
    assert len(shown.splitlines()) == 3


def test_the_same_text_matches_at_a_threshold_of_one(folder):
    texts = [f"{text} {n}" for n in range(40) for text in LINES]
    write(folder, {"x.txt": "\n".join(texts)})
    found = objects("match", "x.txt", "x.txt", "--threshold", "1")
    assert [record["text"] for record in found if record["match"] is None] == []
    assert max(record["score"] for record in found) <= 1
    assert max(max(record["scores"]) for record in objects("similar", "--file", "x.txt")) <= 1


@pytest.mark.parametrize("command", ["duplicates", "inspect"])
@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--threads", "1"), "--threads is for texts that are embedded now"),
        (("--explain",), "--explain is for texts that are embedded now"),
        (("--offline",), "--offline is for texts that are embedded now"),
        (("-m", "demo"), "--model is for texts that are embedded now"),
        (("--glob", "*.md"), "x.npy"),
        (("--jsonl", "t"), "x.npy has vectors"),
    ],
)
def test_options_that_would_do_nothing_to_vectors_are_refused(command, options, said):
    np.save("x.npy", np.eye(3, 32, dtype=np.float32))
    result = run(command, "x.npy", *options)
    assert (result.exit_code, said in result.stderr) == (2, True)


def test_options_of_embedding_are_taken_where_one_side_is_embedded(folder):
    write(folder, {"heard.txt": LINES[0], "phrases.txt": "\n".join(LINES)})
    run("embed", "--lines", "phrases.txt", "-o", "phrases.npy")
    result = run("match", "heard.txt", "phrases.npy", "-m", "demo", "--task", "sts", "--no-cache")
    assert result.exit_code == 0, result.output
    assert "heard.txt and phrases.npy were embedded with different instructions" in result.stderr
    assert "different instructions" not in run("match", "heard.txt", "phrases.npy").stderr
    assert run("match", "phrases.npy", "phrases.npy", "--task", "sts").exit_code == 2


def test_a_space_that_is_none_is_refused_in_a_sentence(folder):
    npy(folder / "x.npy", np.eye(2, 64, dtype=np.float32), "foo")
    result = run("duplicates", "x.npy", "-d", "32")
    assert (result.exit_code, "names the space 'foo', which is none" in result.stderr) == (1, True)


def test_an_index_is_named_as_search_names_it():
    index(data_folder() / "indexes" / "notes.q3e", [Chunk(text, line=n) for n, text in enumerate(LINES, 1)])
    (found, _) = objects("duplicates", "--index", "notes", "--threshold", "0.9")
    assert [member["id"] for member in found["members"]] == ["a/notes.txt:1", "a/notes.txt:2", "a/notes.txt:5"]
    missing = run("duplicates", "--index", "other")
    assert (missing.exit_code, "there is no index named other" in missing.stderr) == (1, True)


def test_a_model_is_loaded_once_for_both_sides_of_a_match(folder, monkeypatch):
    loaded = []
    load = q3e_local.load
    monkeypatch.setattr("q3e_local.load", lambda model, **options: loaded.append(model) or load(model, **options))
    write(folder, {"heard.txt": "three\nfour\n", "phrases.txt": "五\n"})
    assert run("match", "heard.txt", "phrases.txt").exit_code == 0
    assert loaded == ["demo"]


def test_a_text_that_was_cut_is_marked_and_counted():
    result = run("similar", "one two three four five", "one", "--max-tokens", "4", "--json")
    assert [json.loads(line)["truncated"] for line in result.stdout.splitlines()] == [True, False]
    assert "1 text was cut to the limit" in result.stderr


def test_copies_of_vectors_are_not_called_letters():
    np.save("x.npy", np.ones((2, 32), np.float32) / np.sqrt(32))
    result = run("duplicates", "x.npy")
    assert "1 of the same vector" in result.stderr
    assert "letter" not in result.stderr
    assert json.loads(result.stdout)["size"] == 2
