"""What the options of `q3e-local embed` change in the vectors, and what they refuse."""

from __future__ import annotations

import re

import numpy as np
import pytest
from command import embed, expected, records, run, write

from q3e_local import machine
from q3e_local.embedding.prompts import TASKS
from q3e_local.models.catalog import models_folder

TEXTS = ["What did we decide?", "第三季度预算", "short"]


@pytest.fixture(autouse=True)
def _three_lines(tmp_path):
    write(tmp_path, {"a.txt": "\n".join(TEXTS)})


# Options of the command, and the same of the library.
MEANINGS = [
    ([], {}),
    (["-d", 32], {"dim": 32}),
    (["--dimensions", 64], {"dim": 64}),
    (["-d", 256], {"dim": 256}),
    (["--as", "document"], {}),
    (["--as", "query"], {"kind": "query"}),
    (["--as", "query", "-d", 40], {"kind": "query", "dim": 40}),
    *((["--as", "query", "--task", task], {"kind": "query", "task": task}) for task in TASKS),
    *((["--task", task], {"task": task}) for task in TASKS),
    (["--as", "query", "--instruction", "Find the minutes"], {"kind": "query", "instruction": "Find the minutes"}),
    (["--instruction", "找出会议纪要"], {"instruction": "找出会议纪要"}),
    (["--max-tokens", 5], {"max_tokens": 5, "truncate": True}),
    (["--max-tokens", 1], {"max_tokens": 1, "truncate": True}),
    (["--max-tokens", 32768, "--too-long", "error"], {}),
    (["--threads", 1], {}),
    (["--threads", 2, "--gpu-layers", 0], {}),
    (["--batch-tokens", 64], {}),
]


@pytest.mark.parametrize(("options", "meaning"), MEANINGS)
def test_the_vectors_are_those_of_the_library(options, meaning):
    result = embed("--lines", "a.txt", *options)
    assert result.exit_code == 0, result.stderr
    answer = expected(TEXTS, **meaning)
    got = records(result.stdout)
    np.testing.assert_array_equal([record["embedding"] for record in got], answer.vectors)
    assert {record["space"] for record in got} == {answer.space}
    assert tuple(record["tokens"] for record in got) == answer.prompt_tokens
    assert tuple(record["truncated"] for record in got) == answer.truncated
    assert f"model demo, dim {answer.vectors.shape[1]}, space {answer.space}\n" in result.stderr


def test_only_symmetric_tasks_change_documents():
    changing = {task for task in TASKS if expected(TEXTS, task=task).space != expected(TEXTS).space}
    assert changing == {"sts", "classification", "clustering", "bitext"}


def test_what_was_cut_is_told_at_the_end_and_in_each_record():
    result = embed("--lines", "a.txt", "--max-tokens", 7)
    assert result.exit_code == 0
    answer = expected(TEXTS, max_tokens=7, truncate=True)
    cut = [f"a.txt:{n}" for n, truncated in enumerate(answer.truncated, 1) if truncated]
    assert 0 < len(cut) < 3
    assert f"{len(cut)} text{'s' * (len(cut) > 1)} cut to the limit: {', '.join(cut)}\n" in result.stderr
    assert [record["id"] for record in records(result.stdout) if record["truncated"]] == cut


def test_of_many_that_were_cut_five_are_named():
    result = embed(*(["--text", "some more words"] * 8), "--max-tokens", 4)
    assert "8 texts cut to the limit: text:1, text:2, text:3, text:4, text:5 and 3 more\n" in result.stderr


def test_the_summary_says_what_was_done():
    result = embed("--lines", "a.txt")
    n_tokens = sum(expected(TEXTS).prompt_tokens)
    assert result.stderr.startswith(f"3 texts, {n_tokens} tokens in ")
    assert embed("--text", "one").stderr.startswith("1 text, ")


@pytest.mark.parametrize("option", ["-q", "--quiet"])
def test_quiet_says_nothing_of_a_run_that_went_well(option):
    result = embed("--lines", "a.txt", option)
    assert (result.exit_code, result.stderr) == (0, "")


def test_quiet_does_not_hide_what_was_cut_or_skipped():
    result = embed("--text", "some words", "--text", " ", "-q", "--max-tokens", 2, "--skip-errors")
    assert result.exit_code == 3
    assert result.stderr == "1 text cut to the limit: text:1\n1 skipped:\n  text:2 has no text in it\n"


def test_the_model_comes_from_the_environment_unless_an_option_names_it(monkeypatch):
    monkeypatch.setenv("Q3E_MODEL", "demo")
    assert "model demo, " in run("embed", "--text", "one").stderr
    monkeypatch.setenv("Q3E_MODEL", "no-such-model")
    assert embed("--text", "one").exit_code == 0


def test_the_model_can_be_a_path(tmp_path):
    (tmp_path / "own.gguf").write_bytes((models_folder() / "demo.gguf").read_bytes())
    result = run("embed", "-m", "own.gguf", "--text", "one")
    (record,) = records(result.stdout)
    assert record["space"] == expected(["one"]).space  # the same weights are the same space, whatever the name
    assert "model own, " in result.stderr


# Arguments after a sound `--text`, and what the sentence holds.
REFUSED = [
    (["-d", 31], "Error: --dimensions must be between 32 and 256 for demo, got 31"),
    (["-d", 257], "Error: --dimensions must be between 32 and 256 for demo, got 257"),
    (["-d", "many"], "'many' is not a valid integer"),
    (["--task", "sts", "--instruction", "Find"], "give task 'sts' or an instruction, not both"),
    (["--instruction", " "], "the instruction is empty; leave it out to get the default"),
    (["--task", "cooking"], "'cooking' is not one of 'retrieval', 'code', 'sts'"),
    (["--as", "passage"], "'passage' is not one of 'document', 'query'"),
    (["--max-tokens", 0], "Invalid value for '--max-tokens': 0 is not in the range x>=1."),
    (["--max-tokens", 32769], "Error: --max-tokens must be between 1 and 32768 for demo, got 32769"),
    (["--too-long", "split"], "'split' is not one of 'truncate', 'error'"),
    (["--threads", 0], "Invalid value for '--threads': 0 is not in the range 1<=x<=1024."),
    (["--gpu-layers", -1], "Invalid value for '--gpu-layers': '-1' is neither a number from 0 on nor auto."),
    (["--dtype", "float64"], "'float64' is not one of 'float32', 'float16', 'int8', 'binary'"),
    (["--format", "xml"], "'xml' is not one of 'table', 'jsonl'"),
    (["--lines", "--jsonl", "text"], "--lines, --jsonl and --csv exclude each other"),
    (["--lines", "--csv", "text"], "--lines, --jsonl and --csv exclude each other"),
    (["--jsonl", "text", "--csv", "text"], "--lines, --jsonl and --csv exclude each other"),
    (["--id", "key"], "--id needs --jsonl or --csv"),
    (["--lines", "--id", "key"], "--id needs --jsonl or --csv"),
    (["--glob", "*.md"], "--glob needs a folder among the inputs"),
    (["a.txt", "--glob", "*.md"], "--glob needs a folder among the inputs"),
    ([".", "--glob", "/*.md"], "--glob '/*.md' is no pattern: "),
    (["-", "-"], "stdin (-) can be read only once"),
    (["--no-such-option"], "No such option"),
    (["--long-batch-tokens"], "No such option"),  # of version 0.1.0
    (["-o", "out.txt"], "out.txt does not say its format: end it in .jsonl, .ndjson, .json, "),
    (["-o", "out"], "out does not say its format: "),
    (["--resume"], "--resume needs -o with a .jsonl or .npy file"),
    (["--resume", "-o", "out.csv"], "--resume needs -o with a .jsonl or .npy file"),
    (["--resume", "--force", "-o", "out.jsonl"], "--resume keeps what is there, --force replaces it: give one of"),
    (["--format", "table", "--dtype", "int8"], "a table shows float32 numbers; give another --format"),
]


@pytest.mark.parametrize(("arguments", "said"), REFUSED)
def test_wrong_usage_exits_with_2_and_says_what_is_right(arguments, said, tmp_path):
    before = sorted(tmp_path.iterdir())
    result = embed("--text", "one", *arguments)
    assert result.exit_code == 2
    assert said in " ".join(result.stderr.split())
    assert result.stdout == ""
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("more", "begins"), [([], "-k must be between 1"), (["--chapters"], "the number of chapters must be between 1")]
)
def test_an_error_of_the_library_begins_with_the_flag_or_with_what_is_wrong(more, begins):
    """With --chapters the error once began with `-kthe number of chapters`."""
    result = run("cluster", "-m", "demo", "--lines", "a.txt", "-k", 9, *more)
    assert (result.exit_code, result.stderr.startswith(f"Error: {begins} and ")) == (2, True)


@pytest.mark.parametrize("refused", [["-d", 31], ["--max-tokens", 0], ["--instruction", ""], ["--threads", 0]])
@pytest.mark.parametrize("name", ["out.jsonl", "out.npy", "out.csv"])
def test_what_is_refused_leaves_a_file_that_was_to_be_replaced(refused, name, tmp_path):
    write(tmp_path, {name: "of value"})
    assert embed("--text", "one", *refused, "-o", name, "--force").exit_code == 2
    assert (tmp_path / name).read_text() == "of value"


def test_output_to_a_dash_is_stdout():
    assert records(embed("--text", "a", "-o", "-").stdout)[0]["id"] == "text:1"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["t.csv"], "t.csv is embedded as one text; for its records give --csv COLUMN\n"),
        (["t.tsv"], "t.tsv is embedded as one text; for its records give --csv COLUMN\n"),
        (["t.jsonl"], "t.jsonl is embedded as one text; for its records give --jsonl FIELD\n"),
        (["--text", "a", "--task", "code"], "--task code is for queries: documents get no instruction; for queries "),
        (["--text", "a", "--task", "sts"], "1 text, "),
        (["--csv", "a", "t.csv"], "1 text, "),
    ],
)
def test_what_was_probably_not_meant_is_said(arguments, said, tmp_path):
    write(tmp_path, {"t.csv": "a,b\n1,2\n", "t.tsv": "a\tb\n", "t.jsonl": '{"a": "b"}\n'})
    result = embed(*arguments)
    assert result.exit_code == 0
    assert result.stderr.startswith(said)


def test_what_was_chosen_and_why_is_explained_on_stderr(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "physical_cores", lambda: 1)
    for command in (["embed", "--text", "one"], ["bench", "--seconds", 0]):
        result = run(*command, "-m", "demo", "-q", "--explain", "--batch-tokens", 64)
        assert result.exit_code == 0
        kernels, *settings = result.stderr.splitlines()
        assert re.fullmatch(r"demo: kernels (off|avx2|avxvnni|avx512|amx) \(.+\)", kernels)
        settings = [line for line in settings if ": for more speed, " not in line]
        assert settings[:2] == ["demo: n_threads 1 (physical cores)", "demo: n_batch 64 (given)"]
    assert embed("--text", "one", "-q").stderr == ""
