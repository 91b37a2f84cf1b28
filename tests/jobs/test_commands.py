"""The jobs as commands on the demo model: what they write, and what they refuse.

Expected scores come from the library's vectors and NumPy.
"""

from __future__ import annotations

import csv
import json
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from command import PROGRAM, demo, expected, listing, run, write
from fake_service import served
from job_texts import LINES, index, npy, objects, scores, table

from q3e_local.search.database.records import Chunk
from q3e_local.server.local.local_service import LocalService
from q3e_local.server.settings import ServerSettings

FILE = "\n".join([*LINES[:5], "", LINES[5]]) + "\n"  # a blank line, so that lines and rows differ


@pytest.fixture(autouse=True)
def _lines(folder):
    write(folder, {"lines.txt": FILE})


def test_two_texts_are_one_number():
    result = run("similar", LINES[0], LINES[1])
    assert (result.exit_code, result.stdout) == (0, f"{scores()[0, 1]:.4f}\n")


@pytest.mark.parametrize("arguments", [("--file", "lines.txt"), tuple(LINES), ("--file", "-"), ()])
def test_several_texts_are_a_matrix(arguments):
    found = objects("similar", *arguments, input=FILE)
    assert [record["text"] for record in found] == LINES
    assert np.allclose([record["scores"] for record in found], scores(), atol=1e-5)


def test_a_matrix_as_csv_and_as_a_table():
    found = table(run("similar", *LINES, "--format", "csv").stdout)
    assert np.allclose([[float(row[str(n)]) for n in range(1, 7)] for row in found], scores(), atol=1e-5)
    shown = run("similar", *LINES, "--format", "table").stdout.splitlines()
    assert shown[-1].split() == ["6", *LINES[5].split(), *(f"{score:.4f}" for score in scores()[5])]


def test_the_instruction_is_before_every_text():
    got = float(run("similar", LINES[2], LINES[5], "--task", "sts", "-d", "64").stdout)
    assert got == pytest.approx(scores(task="sts", dim=64)[2, 5], abs=2e-3)
    assert got != pytest.approx(scores(dim=64)[2, 5], abs=5e-3)
    money = "Find sentences about money"
    got = float(run("similar", LINES[0], LINES[5], "--instruction", money, "-d", "64").stdout)
    assert got == pytest.approx(scores(instruction=money, dim=64)[0, 5], abs=2e-3)
    assert got > scores(dim=64)[0, 5] + 0.1


def test_groups_of_duplicates_name_what_to_keep():
    result = run("duplicates", "--lines", "lines.txt", "--threshold", "0.9")
    cat, budget = (json.loads(line) for line in result.stdout.splitlines())
    assert [member["id"] for member in cat["members"]] == ["lines.txt:1", "lines.txt:2", "lines.txt:5"]
    assert (cat["representative"], [record["same"] for record in cat["members"]]) == (
        "lines.txt:1",
        [True, False, True],
    )
    assert cat["lowest"] == pytest.approx(scores()[0, 1], abs=1e-5)
    assert [member["text"] for member in budget["members"]] == LINES[2:4]
    assert "2 groups at 0.9 or above in 6 texts; 3 could go, 1 the same to the letter" in result.stderr
    assert run("duplicates", "--lines", "lines.txt", "--threshold", "1", "-q").stderr == ""


def test_clusters_have_their_most_central_texts():
    found = objects("cluster", "--lines", "lines.txt", "-k", "3", "--central", "1")
    assert [(record["size"], record["central"][0]["text"]) for record in found[::2]] == [(3, LINES[0]), (1, LINES[5])]
    assert (found[1]["size"], found[1]["central"][0]["text"] in LINES[2:4]) == (2, True)
    assert sorted((member["id"], member["text"]) for record in found for member in record["members"]) == [
        (f"lines.txt:{n}", text) for n, text in zip((1, 2, 3, 4, 5, 7), LINES, strict=True)
    ]
    assert "the highest silhouette" in run("cluster", "--lines", "lines.txt").stderr


def test_clusters_have_their_key_words_in_every_format(folder):
    found = objects("cluster", "--lines", "lines.txt", "-k", "3")
    # Of each cluster the words that no other has: "the", "on" and "in" are no words of a theme.
    assert [set(record["words"]) for record in found] == [
        {"cat", "mat", "sat"},
        {"获得批准", "预算"},
        {"fell", "may", "prices"},
    ]
    run("cluster", "--lines", "lines.txt", "-k", "3", "-o", "themes.csv", "-q")
    rows = list(csv.DictReader((folder / "themes.csv").read_text(encoding="utf-8").splitlines()))
    assert {(row["cluster"], row["words"]) for row in rows} == {
        (str(record["cluster"]), ", ".join(record["words"])) for record in found
    }


def test_chapters_say_their_lines_and_end_with_their_file(folder):
    write(folder, {"other.txt": "\n".join([LINES[2], LINES[3], LINES[0], LINES[1]])})
    found = objects("cluster", "--chapters", "--lines", "lines.txt", "-k", "3")
    assert [(record["first_line"], record["last_line"]) for record in found] == [(1, 2), (3, 4), (5, 7)]
    found = objects("cluster", "--chapters", "--lines", "lines.txt", "other.txt")
    lines = [(record["source"], record["first_line"], record["last_line"]) for record in found]
    assert lines == [("lines.txt", 1, 7), ("other.txt", 1, 4)]


def test_each_line_is_matched_or_not(folder):
    write(folder, {"heard.txt": "the cat sat in the mat\n\nnothing of the sort\n", "phrases.txt": FILE})
    phrases = [*LINES[:4], LINES[5]]
    heard = ["the cat sat in the mat", "nothing of the sort"]
    got = expected(heard).vectors @ expected(phrases).vectors.T
    first, second = objects("match", "heard.txt", "phrases.txt", "--threshold", "0.9", "--top", "3")
    best = np.argsort(-got[0])
    assert (first["line"], first["match"], first["second"]) == (1, phrases[best[0]], phrases[best[1]])
    assert first["score"] == pytest.approx(got[0, best[0]], abs=1e-5)
    assert first["margin"] == pytest.approx(got[0, best[0]] - got[0, best[1]], abs=1e-5)
    assert [record["text"] for record in first["nearest"]] == [phrases[place] for place in best[:3]]
    assert (second["line"], second["match"]) == (3, None)
    assert second["score"] == pytest.approx(got[1].max(), abs=1e-5)
    result = run("match", "-", "phrases.txt", "--format", "csv", input="the cat sat in the mat\n")
    assert table(result.stdout)[0]["match"] == first["match"]
    assert "1 phrase there more than once" in result.stderr
    assert "1 of 1 text match one of 5 phrases" in result.stderr


def test_one_phrase_has_no_second(folder):
    write(folder, {"one.txt": "prices fell\n"})
    found = objects("match", "lines.txt", "one.txt", "--top", "5")
    assert {(record["second"], record["margin"]) for record in found} == {(None, None)}


def test_a_text_as_the_model_saw_it():
    (found,) = objects("inspect", "--text", "cafe\u0301 预算", "--task", "clustering")
    vector = expected(["cafe\u0301 预算"], task="clustering").vectors[0]
    assert found["text"] == "Instruct: Identify the category of documents\nQuery:caf\u00e9 预算"
    assert "".join(token["piece"] for token in found["tokens"]).replace("<0xC3><0xA9>", "é") == (
        found["text"] + "<|endoftext|>"
    )
    assert found["tokens"][-1]["id"] == demo().engine.eos_id
    assert found["renormalized"]
    assert found["mean"] == pytest.approx(vector.mean(), abs=1e-6)
    assert found["spread"] == pytest.approx(vector.std(), abs=1e-6)
    assert found["histogram"]["counts"] == np.histogram(vector.astype(float), 16)[0].tolist()


def test_a_row_of_a_npy_is_inspected_as_it_is(folder):
    np.save("x.npy", np.array([[1, 0], [3, -4]], np.float16))
    (found,) = objects("inspect", "x.npy", "--row", "1")
    assert (found["norm"], found["lowest"], found["highest"], found["id"]) == (5, -4, 3, "row 1")


def test_vectors_of_embed_are_taken_and_their_inputs_give_the_texts():
    run("embed", "--lines", "lines.txt", "-o", "x.npy")
    alone = objects("duplicates", "x.npy", "--threshold", "0.9")
    assert [member["id"] for member in alone[0]["members"]] == ["lines.txt:1", "lines.txt:2", "lines.txt:5"]
    with_texts = objects("duplicates", "x.npy", "--lines", "lines.txt", "--threshold", "0.9", "-d", "64")
    assert with_texts[0]["members"][1]["text"] == LINES[1]
    assert with_texts[0]["lowest"] == pytest.approx(scores(dim=64)[0, 1], abs=1e-4)
    found = objects("match", "x.npy", "lines.txt")
    assert [record["match"] for record in found] == LINES


def test_vectors_of_other_programs_are_scaled_with_a_notice(folder):
    np.save("x.npy", np.array([[2, 0, 0], [3, 0, 0.1], [0, 0, 4]], np.float64))
    result = run("duplicates", "x.npy", "--threshold", "0.9")
    assert "rows of x.npy have lengths from 2 to 4; they are scaled to 1" in result.stderr
    assert [record["id"] for record in json.loads(result.stdout)["members"]] == ["row 0", "row 1"]


def test_an_index_is_a_collection(folder):
    chunks = [Chunk(text, line=number) for number, text in enumerate(LINES, 1)]
    index(folder / "notes.q3e", chunks, ["mine", "yours"])
    found = objects("duplicates", "notes.q3e", "--threshold", "0.9")
    assert [member["id"] for member in found[0]["members"]] == ["a/notes.txt:1", "a/notes.txt:2", "mine"]
    assert objects("match", "lines.txt", "notes.q3e")[5]["match"] == LINES[5]
    assert run("plot", "notes.q3e", "-o", "map.html").exit_code == 0
    cut = objects("duplicates", "notes.q3e", "--threshold", "0.9", "-d", "64")
    assert cut[0]["lowest"] == pytest.approx(scores(dim=64)[0, 1], abs=1e-4)
    assert "between 1 and 256 for notes.q3e, got 257" in run("duplicates", "notes.q3e", "-d", "257").stderr


def test_a_running_server_may_compute(folder):
    settings = {"models": ("demo",)}
    with served(LocalService(ServerSettings(**settings)), **settings) as http:
        server = ("--server", str(http.base_url))
        got = float(run("similar", LINES[0], LINES[5], *server).stdout)
        assert got == pytest.approx(scores()[0, 5], abs=2e-3)
        assert objects("match", "lines.txt", "lines.txt", *server)[2]["match"] == LINES[2]
        kept = run("filter-pairs", "-", "a", "b", *server, input="a,b\nthe cat sat,the cat sat\nx,prices fell\n")
        assert kept.stdout == "a,b\nthe cat sat,the cat sat\n"
        (found,) = objects("inspect", "--text", "the cat", *server)
        assert (found["dim"], "tokens" in found) == (256, False)


@pytest.mark.parametrize("arguments", ["similar --file bad.txt --json", "inspect --lines bad.txt"])
def test_skip_errors_skips_what_cannot_be_read(arguments, folder):
    write(folder, {"bad.txt": b"the cat\nprices \xff\nthe dog\n"})
    refused = run(*arguments.split())
    assert (refused.exit_code, refused.stderr.count("\n")) == (1, 1)
    assert "bad.txt:2 is not UTF-8" in refused.stderr
    result = run(*arguments.split(), "--skip-errors")
    assert result.exit_code == 3
    assert [json.loads(line)["id"] for line in result.stdout.splitlines()] == ["bad.txt:1", "bad.txt:3"]
    assert "1 skipped:\n  bad.txt:2 is not UTF-8" in result.stderr


def test_an_output_lands_whole_and_is_not_replaced_unasked(folder):
    before = set(listing(folder))
    arguments = ("duplicates", "--lines", "lines.txt", "--threshold", "0.9", "-o", "groups.csv")
    assert run(*arguments).exit_code == 0
    found = table((folder / "groups.csv").read_text(encoding="utf-8"))
    rows = [(row["group"], row["kept"], row["id"]) for row in found]
    assert rows[:2] == [("1", "*", "lines.txt:1"), ("1", "", "lines.txt:2")]
    refused = run(*arguments)
    assert (refused.exit_code, "groups.csv exists" in refused.stderr) == (1, True)
    assert run(*arguments, "--force").exit_code == 0
    assert set(listing(folder)) == before | {"groups.csv"}


REFUSED = [
    (("similar", "one"), 1, ["there is 1 text", "at least 2"]),
    (("similar",), 1, ["there are no texts in the input"]),
    (("similar", "--file", "empty.txt"), 1, ["there are no texts in the input"]),
    (("duplicates", "lines.txt"), 1, ["there is 1 text", "with --lines each line of lines.txt is one"]),
    (("duplicates", "--lines", "lines.txt", "--threshold", "1.5"), 2, ["1.5 is not in the range -1<=x<=1"]),
    (("duplicates", "--lines", "lines.txt", "-d", "7"), 2, ["--dimensions must be between 32 and 256", "got 7"]),
    (("duplicates", "--lines", "lines.txt", "--format", "csv", "--json"), 2, ["give one of them"]),
    (("duplicates", "--lines", "lines.txt", "-o", "groups.xyz"), 2, ["does not say its format"]),
    (("duplicates", "missing.npy"), 1, ["there is no file missing.npy"]),
    (("duplicates", "text.npy"), 1, ["text.npy is no NumPy array"]),
    (("duplicates", "nan.npy"), 1, ["row 1 of nan.npy has NaN"]),
    (("duplicates", "zero.npy"), 1, ["row 2 of zero.npy is all zeros"]),
    (("duplicates", "flat.npy"), 1, ["must be an array of shape (n, dim), got (4,)"]),
    (("duplicates", "none.npy"), 1, ["has no vectors: its shape is (0, 4)"]),
    (("duplicates", "bits.npy"), 1, ["holds uint8, packed bits"]),
    (("duplicates", "good.npy", "-d", "9"), 2, ["--dimensions must be between 1 and 4 for good.npy, got 9"]),
    (("duplicates", "good.npy", "--lines", "lines.txt"), 1, ["good.npy has 3 rows", "have 6 texts"]),
    (("duplicates", "good.npy", "--task", "sts"), 2, ["--task is for texts that are embedded now"]),
    (("duplicates", "good.npy", "zero.npy"), 2, ["both have vectors"]),
    (("duplicates", "other.npy", "--lines", "lines.txt"), 1, ["lines.txt:1 is not the text that row 0 of other.npy"]),
    (("duplicates", "lines.q3e"), 1, ["lines.q3e"]),
    (("cluster", "--lines", "lines.txt", "-k", "7"), 2, ["-k must be between 1 and the number of texts, 6, got 7"]),
    (("cluster", "--lines", "lines.txt", "-k", "6"), 2, ["-k must be at most the number of different texts, 5"]),
    (("cluster", "--lines", "lines.txt", "-k", "7", "--chapters"), 2, ["number of chapters must be between 1 and"]),
    (("match", "lines.txt", "empty.txt"), 1, ["there are no texts in the input"]),
    (("match", "lines.txt", "good.npy"), 2, ["lines.txt has vectors of dim 256, good.npy of 4"]),
    (("match", "-", "-"), 2, ["stdin (-) can be read only once"]),
    (("match", "lines.txt"), 2, ["Missing argument 'PHRASES'"]),
    (("inspect", "good.npy", "--row", "3"), 2, ["--row must be between 0 and 2 for good.npy, got 3"]),
    (("inspect", "lines.txt", "--row", "3"), 2, ["--row is for a .npy"]),
    (("plot", "--lines", "lines.txt", "-o", "map.pdf"), 2, ["end it in .png or .html"]),
    (("plot", "--lines", "lines.txt", "-o", "map.png", "-k", "2"), 2, ["-k is for --colour cluster"]),
    (("plot", "--text", "one", "-o", "map.html"), 1, ["there is 1 text", "at least 2"]),
    (("plot", "--lines", "few.txt", "--method", "tsne", "-o", "x.html"), 2, ["tsne needs at least 4 texts, got 3"]),
    (("cluster", "--chapters", "--lines", "few.txt", "lines.txt", "-k", "2"), 2, ["there are 2 files"]),
]
# What only the model, or its vectors, can show.
NEED_MODEL = ["--dimensions must be between 32", "number of different texts", "has vectors of dim 256, good.npy of 4"]


@pytest.mark.parametrize(("arguments", "code", "said"), REFUSED, ids=[" ".join(case[0]) for case in REFUSED])
def test_what_cannot_be_done_is_refused_in_a_sentence_before_a_model_is_loaded(
    arguments, code, said, folder, monkeypatch
):
    if not any(part in sentence for part in NEED_MODEL for sentence in said):
        monkeypatch.setattr("q3e_local.load", None)
    good = np.eye(3, 4, dtype=np.float32)
    arrays = {"good": good, "nan": good * [[1], [np.nan], [1]], "zero": good * [[1], [1], [0]], "flat": good[0]}
    arrays |= {"none": good[:0], "bits": good.astype(np.uint8)}
    for name, array in arrays.items():
        np.save(f"{name}.npy", array)
    npy(folder / "other.npy", np.eye(6, 32, dtype=np.float32), "q3e1-0-32-plain")
    write(folder, {"empty.txt": "\n \n", "text.npy": "no array", "lines.q3e": "no index", "few.txt": "a\nb\nc\n"})
    before = listing(folder)
    result = run(*arguments)
    assert result.exit_code == code, result.output
    assert [part for part in said if part not in result.stderr] == []
    assert "Traceback" not in result.stderr
    assert listing(folder) == before


@pytest.mark.parametrize(
    ("arguments", "module"),
    [
        (("cluster", "--lines", "lines.txt"), "sklearn"),
        (("plot", "--lines", "lines.txt", "--method", "tsne", "-o", "map.html"), "sklearn"),
        (("plot", "--lines", "lines.txt", "-o", "map.png"), "matplotlib"),
    ],
)
def test_a_missing_extra_is_named_before_texts_are_embedded(arguments, module, folder, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == module else object())
    monkeypatch.setattr("q3e_local.load", None)
    result = run(*arguments)
    assert result.exit_code == 1
    assert "pip install 'q3e-local[analysis]'" in result.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_ctrl_c_ends_a_job_with_one_word_and_nothing_left(folder):
    command = [*PROGRAM, "filter-pairs", "-", "a", "b", "-o", "kept.csv"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as job:
        job.stdin.write(b"a,b\none,two\n")
        job.stdin.flush()
        end = time.monotonic() + 60
        while not list(folder.glob(".kept.csv.*")):  # until it is at work: before, there is nothing to leave behind
            assert time.monotonic() < end
            time.sleep(0.05)
        job.send_signal(signal.SIGINT)
        job.stdin.close()
        assert job.wait(20) == 130
        assert job.stderr.read().strip() == b"Interrupted."
    assert not list(folder.glob("*kept.csv*"))
