"""`q3e-local eval` as people call it: what it prints and writes, what it refuses, and where its figures come from."""

from __future__ import annotations

import csv
import io
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import assert_refused, demo, failed, run, write
from fake_reranker import fake_reranker
from fake_service import served
from labelled import QUESTIONS, answers, index_corpus
from planted import N_QUESTIONS, corpus, opened, planted, questions, vectors
from screen import on_screen

import q3e_local
from q3e_local import VectorIndex
from q3e_local.evaluation import columns, evaluate, read_data
from q3e_local.server.local.local_service import LocalService
from q3e_local.server.settings import ServerSettings

MEASURES = ("ndcg_at_10", "recall_at_10", "mrr_at_10", "map")
PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the index of the labelled corpus, and its questions in a file."""
    folder = tmp_path_factory.mktemp("labelled")
    index_corpus(folder / "corpus.q3e")
    with VectorIndex(folder / "corpus.q3e", demo()) as index:
        lines = [json.dumps({"query": text, "relevant": [answer]}) for text, answer in answers(index)]
    (folder / "questions.jsonl").write_text("\n".join(lines))
    return folder


@pytest.fixture
def here(labelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of that folder, in which the command runs."""
    monkeypatch.setenv("Q3E_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COLUMNS", "80")
    shutil.copytree(labelled, tmp_path, dirs_exist_ok=True)
    return tmp_path


EVAL = ("eval", "questions.jsonl", "--db", "corpus.q3e")


def records(*arguments: object) -> list[dict[str, Any]]:
    """The objects that the command writes."""
    result = run(*arguments)
    assert result.exit_code == 0, result.stderr
    return [json.loads(line) for line in result.stdout.splitlines()]


# What comes out


def test_people_get_a_table_and_how_far_each_column_is_from_the_first(here):
    result = run(*EVAL, "--dim", "256,32", "--mode", "vectors,words", "--format", "table")
    assert (result.exit_code, result.stderr) == (0, "")
    head, headings, *rows = result.stdout.splitlines()
    assert head == "45 questions, 40 passages of corpus.q3e, by demo"
    assert headings.split() == ["nDCG@10", "recall@10", "MRR@10", "MAP", "s/question", "bytes", "column"]
    assert [row.split("  ")[-1].strip() for row in rows[:3]] == ["dim 256, vectors", "words", "dim 32, vectors"]
    assert rows[4].endswith("  against 1")
    assert rows[5].startswith("2  ")
    assert rows[6].endswith("  worse")
    assert max(map(len, result.stdout.splitlines())) <= 80


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pseudo-terminals")
def test_on_a_narrow_terminal_no_line_is_broken(here):
    command = [sys.executable, "-m", "q3e_local", *EVAL, "--dim", "256,64", "--dtype", "float32,binary"]
    with on_screen(command, columns=80) as screen:
        assert screen.end() == 0
    assert screen.lines[0] == "45 questions, 40 passages of corpus.q3e, by demo"
    assert screen.lines[2].endswith("1,024  dim 256, float32")
    assert screen.lines[-1].startswith("4  -0.")
    assert len(screen.lines) == 10


def test_programs_get_an_object_or_a_row_for_each_column(here):
    first, second = records(*EVAL, "--dim", "256,32")
    assert (first["column"], first["name"], first["differences"], first["verdict"]) == (1, "dim 256", None, None)
    assert (second["model"], second["dim"], second["dtype"], second["mode"]) == ("demo", 32, "float32", "vectors")
    assert second["verdict"] == "worse"
    assert (second["bytes"], second["n_questions"]) == (128, len(QUESTIONS))
    for name in MEASURES:
        assert second["differences"][name]["value"] == pytest.approx(second[name] - first[name])
    result = run(*EVAL, "--dim", "256,32", "--csv")
    rows = list(csv.DictReader(io.StringIO(result.stdout)))
    assert [float(row["ndcg_at_10"]) for row in rows] == [first["ndcg_at_10"], second["ndcg_at_10"]]
    assert float(rows[1]["high"]) == second["differences"]["ndcg_at_10"]["high"]
    assert (rows[0]["difference"], rows[1]["verdict"]) == ("", "worse")
    assert run(*EVAL, "-o", "found.csv").exit_code == 0
    assert Path("found.csv").read_text().startswith("column,name,model,dim,")
    Path("found.jsonl").touch()
    assert_refused([*EVAL, "-o", "found.jsonl"], 1, ["found.jsonl exists; replace it with --force"])


def test_a_list_may_be_given_in_parts(here):
    options = ("--dim", "256", "--dim", "128,64", "--mode", "vectors", "--mode", "words")
    names = [each["name"] for each in records(*EVAL, *options)]
    assert names == ["dim 256, vectors", "words", "dim 128, vectors", "dim 64, vectors"]


def test_a_picture_is_a_png_or_a_page_that_loads_nothing(here):
    result = run(*EVAL, "--dim", "256,64", "--mode", "vectors,words", "--plot", "found.png")
    assert result.stderr == "3 columns in found.png\n"
    assert Path("found.png").read_bytes().startswith(PNG)
    assert run(*EVAL, "--dim", "256,64", "--plot", "found.html", "-q").stderr == ""
    page = Path("found.html").read_text(encoding="utf-8")
    assert "<svg" in page
    assert "<td>dim 64</td>" in page
    assert "<!-- 300 -->" in page  # what stands at an axis
    assert r"\times" not in page  # no power of ten
    assert "src=" not in page
    assert "@import" not in page
    assert_refused([*EVAL, "--plot", "found.html"], 1, ["found.html exists; replace it with --force"])
    assert run(*EVAL, "--plot", "found.html", "--force").exit_code == 0


def test_the_command_the_library_and_a_server_agree(here):
    """The labelled corpus of the tests, by all three."""
    compared = columns(dims=(256, 64), dtypes=("float32", "int8"), modes=("vectors", "auto"))
    of_library = evaluate(
        read_data(Path("questions.jsonl")), compared, index=Path("corpus.q3e"), models=opened(demo())
    )
    options = ("--dim", "256,64", "--dtype", "float32,int8", "--mode", "vectors,auto")
    of_command = records(*EVAL, *options, "--no-cache")
    settings = {"models": ("demo",)}
    with served(LocalService(ServerSettings(**settings)), **settings) as http:
        of_server = records(*EVAL, *options, "--server", str(http.base_url).rstrip("/"))
    for result, mine, theirs in zip(of_library.results, of_command, of_server, strict=True):
        assert mine["dim"] == theirs["dim"] == result.column.dim
        for name in MEASURES:
            assert mine[name] == pytest.approx(result.measures[name], abs=1e-6)
            assert theirs[name] == pytest.approx(result.measures[name], abs=1e-6)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pseudo-terminals")
def test_a_terminal_shows_what_is_done_and_how_far_it_is(here, gates):
    lines = [f'{{"_id": "p{i}", "text": "passage {i:04}"}}\n' for i in range(40)]
    asked = [f'{{"query": "asked {i}", "relevant": ["p{i}"]}}\n' for i in range(4)]
    write(here, {"corpus.jsonl": "".join(lines), "q.jsonl": "".join(asked)})
    gates.open(1, 2, 3)
    with gates.on_screen("eval", "q.jsonl", "--corpus", "corpus.jsonl", "-m", "demo", columns=80) as screen:
        gates.wait_for(4)
        screen.wait_for("embedding 40 passages with demo")
        screen.wait_for(" of 40")
        gates.finish(screen)
        assert screen.lines[0] == "4 questions, 40 passages of corpus.jsonl, by demo"


# What is read


def test_a_beir_folder_brings_its_own_texts(here):
    write(
        here / "beir",
        {
            "corpus.jsonl": "".join(
                f'{{"_id": "{name}", "text": "{text}"}}\n'
                for name, text in {"d1": "The neighbour fed the cat.", "d2": "Prices fell in May."}.items()
            ),
            "queries.jsonl": '{"_id": "1", "text": "who fed the cat?"}\n{"_id": "2", "text": "what did prices do?"}',
            "qrels/test.tsv": "query-id\tcorpus-id\tscore\n1\td1\t1\n2\td2\t1\n",
        },
    )
    result = run("eval", "beir", "-m", "demo", "--mode", "vectors,words", "--json")
    assert [json.loads(line)["ndcg_at_10"] for line in result.stdout.splitlines()] == [1, 1]
    assert result.stderr == "fewer than 20 questions: the intervals are narrower than they should be\n"
    alone = records("eval", "beir", "-m", "demo", "--corpus", "beir/corpus.jsonl")
    assert alone[0]["ndcg_at_10"] == 1
    write(here, {"beir/qrels/test.tsv": "1\td1\t1\n2\td2\t1\n2\td9\t1\n"})
    said = "beir/qrels/test.tsv: question '2' names 'd9', which is not in beir/corpus.jsonl"
    assert_refused(["eval", "beir", "-m", "demo"], 1, [said])


def test_the_default_index_is_asked_where_none_is_named(here):
    write(here / "notes", {"a.md": "The neighbour fed the cat.", "b.md": "Prices fell in May."})
    assert run("index", "notes", "-m", "demo", "-q").exit_code == 0
    Path("q.jsonl").write_text(
        '{"query": "who fed the cat?", "relevant": ["a.md"]}\n{"query": "what did prices do?", "relevant": ["b.md"]}'
    )
    result = run("eval", "q.jsonl", "--format", "table", "-q")
    assert result.stdout.splitlines()[0] == "2 questions, 2 passages of the index default, by demo"
    assert result.stdout.splitlines()[2].split()[1] == "1.0000"


def test_pairs_classes_and_clusters(here):
    rows = ["the cat was fed,someone fed the cat,5", "the cat was fed,prices fell,0", "we move,the office moves,4"]
    Path("sts.csv").write_text("sentence1,sentence2,score\n" + "\n".join(rows))
    (pairs,) = records("eval", "sts.csv", "-m", "demo")
    assert (pairs["n_pairs"], -1 <= pairs["spearman"] <= 1) == (3, True)
    texts = {"pay": ["the invoice is wrong", "refund my money"], "log": ["I forgot my password", "cannot sign in"]}
    lines = [json.dumps({"text": text, "label": label}) for label, each in texts.items() for text in each]
    Path("texts.jsonl").write_text("\n".join(lines))
    assert "accuracy" in records("eval", "texts.jsonl", "-m", "demo")[0]
    assert "v_measure" in records("eval", "texts.jsonl", "-m", "demo", "--as", "clustering")[0]


def test_questions_that_were_proposed_can_be_asked(here):
    result = run("eval", "--db", "corpus.q3e", "--make-questions", "30", "-o", "proposed.jsonl")
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr.startswith("30 questions: headings and first sentences, so easy ones that words alone find;")
    asked = records("eval", "proposed.jsonl", "--db", "corpus.q3e", "--mode", "vectors,words")
    assert [record["n_questions"] for record in asked] == [30, 30]
    assert asked[1]["ndcg_at_10"] > 0.9
    more = run("eval", "--db", "corpus.q3e", "--make-questions", "3000", "--json")
    n = len(more.stdout.splitlines())
    assert more.stderr.startswith(f"{n} questions, all there are of 3,000: ")


def test_agreement_needs_questions_alone(here):
    Path("asked.txt").write_text("\n".join(label.question for label in QUESTIONS))
    result = run("eval", "asked.txt", "--db", "corpus.q3e", "--agree", "--dim", "256,64", "--format", "table")
    first, second = result.stdout.splitlines()[2:]
    assert first.split()[:2] == ["1", "1.0000"]
    share, low, _, high = second.split()[1:5]
    assert float(low) <= float(share) <= float(high) < 1


# Which model and reranker


def test_a_reranker_makes_columns_of_its_own(here, monkeypatch):
    loaded = []
    monkeypatch.setattr("q3e_local.load_reranker", lambda model, **options: loaded.append(model) or fake_reranker())
    found = records(*EVAL, "--rerank", "5,20", "--reranker", "mine.gguf")
    assert [record["rerank"] for record in found] == [None, 5, 20]
    assert loaded == ["mine.gguf"]
    assert [record["rerank"] for record in records(*EVAL, "--rerank", "--reranker", "mine.gguf")] == [None, 10]
    assert [record["rerank"] for record in records(*EVAL, "--rerank", "3", "--rerank")] == [None, 3, 10]


def test_several_models_and_instructions(here, monkeypatch):
    loaded = []
    load = q3e_local.load
    monkeypatch.setattr("q3e_local.load", lambda model, **options: loaded.append(model) or load("demo", **options))
    found = records(*EVAL, "-m", "demo", "-m", "q3e-mini", "--instruction", "none", "--instruction", "code")
    assert loaded == ["demo", "q3e-mini"]
    assert [record["instruction"] for record in found] == ["none", "code"] * 2
    assert found[0]["ndcg_at_10"] == found[2]["ndcg_at_10"]


# What is refused


@pytest.mark.parametrize(
    ("arguments", "code", "parts"),
    [
        (["eval"], 2, ["name a file of labelled questions; without any: q3e-local eval --make-questions 50"]),
        (["eval", "nowhere.jsonl"], 1, ["there is no file or folder nowhere.jsonl"]),
        ([*EVAL, "--index", "work"], 2, ["on one index or corpus alone, got 2: work, corpus.q3e"]),
        ([*EVAL, "--db", "other.q3e"], 2, ["got 2: corpus.q3e, other.q3e"]),
        (["eval", "questions.jsonl", "--db", "nowhere.q3e"], 1, ["there is no index nowhere.q3e"]),
        ([*EVAL, "--dim", "256,x"], 2, ["'x' is not a valid integer"]),
        ([*EVAL, "--dim", "16"], 2, ["--dimensions must be between 32 and 256 for demo, got 16"]),
        ([*EVAL, "--dtype", "int4"], 2, ["'int4' is not one of 'float32', 'float16', 'int8', 'binary'"]),
        ([*EVAL, "--mode", "vectors,fast"], 2, ["'fast' is not one of"]),
        ([*EVAL, "--instruction", ""], 2, ["--instruction is empty; 'none' means no instruction"]),
        ([*EVAL, "--reranker", "x"], 2, ["--reranker is for the second stage of a search; give --rerank too"]),
        (
            ["eval", "--rerank", "questions.jsonl"],
            2,
            ["put DATA before --rerank, or give a number, as in --rerank 10"],
        ),
        ([*EVAL, "--rerank", "0"], 2, ["0 is not in the range 1<=x<=10000"]),
        ([*EVAL, "--agree", "--rerank"], 2, ["--rerank must be above 10 with agree: of 10 candidates or fewer"]),
        ([*EVAL, "--rerank", "5", "--server", "127.0.0.1:9"], 2, ["--rerank reads candidates in this process"]),
        ([*EVAL, "--explain", "--server", "127.0.0.1:9"], 2, ["--explain is for a model in this process"]),
        ([*EVAL, "--split", "dev"], 2, ["--split", "questions.jsonl is a file; leave it out"]),
        ([*EVAL, "--as", "sts"], 2, ["questions are measured as retrieval, not as sts"]),
        ([*EVAL, "--plot", "x.pdf"], 2, ["x.pdf does not say what to draw: end it in .png or .html"]),
        ([*EVAL, "--json", "--csv"], 2, ["--csv is --format csv, not jsonl; give one of them"]),
        ([*EVAL, "--make-questions", "5"], 2, ["--make-questions evaluates nothing; leave questions.jsonl out"]),
        (["eval", "--make-questions", "5", "--dim", "64"], 2, ["evaluates nothing; leave --dimensions out"]),
        (["eval", "--make-questions", "5", "--db", "corpus.q3e", "--csv"], 2, ["write questions as .jsonl"]),
        (["eval", "--make-questions", "5", "--corpus", "x"], 2, ["index the corpus first"]),
        (["eval", "sts.csv", "--db", "corpus.q3e"], 2, ["sts.csv has no questions to ask an index or a corpus"]),
        (
            ["eval", "wrong.jsonl", "--db", "corpus.q3e"],
            1,
            ["wrong.jsonl:2 names 'd9', neither a passage nor a file"],
        ),
        (["eval", "one.jsonl", "--db", "corpus.q3e"], 1, ["one.jsonl has 1 question; to compare columns takes at"]),
        (["eval", "blank.jsonl", "--db", "corpus.q3e"], 1, ["blank.jsonl:2: 'query' is empty"]),
        (["eval", "twice.jsonl", "--db", "corpus.q3e"], 1, ["twice.jsonl has the id 'a' twice"]),
    ],
)
def test_what_is_wrong_is_told_in_one_sentence(here, arguments, code, parts):
    good = '{"query": "a", "relevant": ["en-lease.md"], "id": "a"}\n'
    write(
        here,
        {
            "sts.csv": "sentence1,sentence2,score\na,b,1\na,c,2\n",
            "wrong.jsonl": good + '{"query": "b", "relevant": ["d9"]}',
            "one.jsonl": good,
            "blank.jsonl": good + '{"query": " ", "relevant": ["en-lease.md"]}',
            "twice.jsonl": good * 2,
        },
    )
    assert_refused(arguments, code, parts)


@pytest.mark.parametrize(
    ("module", "package", "arguments"),
    [
        ("pytrec_eval", "pytrec-eval-terrier", EVAL),
        ("scipy", "scipy", EVAL),
        ("sklearn.linear_model", "scikit-learn", ("eval", "texts.jsonl", "-m", "demo")),
    ],
)
def test_a_missing_package_is_told_with_the_line_that_installs_it(here, module, package, arguments, monkeypatch):
    write(here, {"texts.jsonl": '{"text": "a", "label": "x"}\n{"text": "b", "label": "y"}'})
    for name in [name for name in sys.modules if name == module or name.startswith(f"{module}.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setattr("q3e_local.load", lambda model, **options: pytest.fail("a model was loaded"))
    assert f"needs {package}; install it with: pip install 'q3e-local[eval]'" in failed(*arguments)


def test_a_machine_without_a_wheel_is_sent_to_the_package_itself(here, monkeypatch):
    monkeypatch.setitem(sys.modules, "pytrec_eval", None)
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    assert "install it with: pip install pytrec-eval-terrier\n" in failed(*EVAL)


# Ctrl-C


def test_ctrl_c_ends_with_130_and_the_same_command_goes_on(here, monkeypatch):
    write(
        here,
        {
            "corpus.jsonl": "".join(f'{{"_id": "{d.id}", "text": "{d.text}"}}\n' for d in corpus().documents),
            "q.jsonl": "".join(
                f'{{"query": "{each.text}", "relevant": ["{next(iter(each.relevant))}"]}}\n'
                for each in questions().questions
            ),
        },
    )
    n_decodes_max, computed = 5, []

    def load(model: str, *, cache: str, **options: Any) -> q3e_local.Embedder:
        from q3e_local.cache.choose import open_cache

        embedder = planted(vectors(256), open_cache(cache))
        decode, n_decodes = embedder.engine.decode, iter(range(n_decodes_max))

        def until(sequences: Any, n_prefix: Any = None) -> np.ndarray:
            if next(n_decodes, None) is None:
                raise KeyboardInterrupt
            computed.append(len(sequences))
            return decode(sequences, n_prefix)

        embedder.engine.decode = until
        return embedder

    monkeypatch.setattr("q3e_local.load", load)
    command = ("eval", "q.jsonl", "--corpus", "corpus.jsonl")
    result = run(*command)
    assert (result.exit_code, result.stdout) == (130, "")
    said = f"what was computed is in the cache; go on with: q3e-local {' '.join(command)}"
    assert result.stderr == f"Interrupted: {said}\n"
    n_first, n_decodes_max = sum(computed), 10_000
    computed.clear()
    (found,) = records(*command)
    assert found["n_questions"] == N_QUESTIONS
    assert sum(computed) == 2 * N_QUESTIONS - n_first + 5  # five questions are timed
