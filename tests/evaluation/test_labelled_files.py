"""What is read from labelled files and BEIR folders, and what is wrong with one: a sentence that names the line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command import write

from q3e_local.errors import InputError, OptionError
from q3e_local.evaluation import Corpus, Document, LabelledTexts, Pairs, Questions, read_corpus, read_data

QUESTIONS = '{"query": "who?", "relevant": ["a", "b"]}\n\n{"query": "wo?", "relevant": {"c": 3}, "_id": 7}\n'
BEIR = {
    "corpus.jsonl": '{"_id": "d1", "title": "A cat", "text": "It slept."}\n{"_id": "d2", "text": "Dogs"}',
    "queries.jsonl": '{"_id": "q1", "text": "cat?"}\n{"_id": "q2", "text": "dog?"}\n{"_id": "q3", "text": "bird?"}',
    "qrels/test.tsv": "query-id\tcorpus-id\tscore\nq1\td1\t2\nq1\td2\t0\nq2\td2\t1\nq3\td1\t0\n",
}


def beir(**changed: str | None) -> Path:
    """A BEIR folder with some of its files changed: `queries` for queries.jsonl and so on."""
    names = {"corpus": "corpus.jsonl", "queries": "queries.jsonl", "qrels": "qrels/test.tsv"}
    files = BEIR | {names[name]: content for name, content in changed.items()}
    write(Path("beir"), {name: content for name, content in files.items() if content is not None})
    return Path("beir")


def read(content: str, name: str = "q.jsonl", **options):
    Path(name).write_text(content, encoding="utf-8")
    return read_data(Path(name), **options)


# What is read


def test_questions_of_json_lines():
    found = read(QUESTIONS)
    assert isinstance(found, Questions)
    assert [(each.id, each.text, each.relevant, each.place) for each in found.questions] == [
        ("1", "who?", {"a": 1, "b": 1}, "q.jsonl:1"),
        ("7", "wo?", {"c": 3}, "q.jsonl:3"),
    ]


def test_questions_of_a_table_and_of_lines():
    table = read("query;relevant;id\nwho?;a.md;x\nwo?;b.md;y\n", "q.csv")
    assert [(each.id, each.relevant) for each in table.questions] == [("x", {"a.md": 1}), ("y", {"b.md": 1})]
    lines = read("who?\n\nwo ist\n", "q.txt", is_labelled=False)
    assert [(each.id, each.text, each.relevant) for each in lines.questions] == [
        ("1", "who?", {}),
        ("2", "wo ist", {}),
    ]


def test_a_file_in_another_encoding():
    texts = ["第三季度的云服务器预算是多少", "展会的展台由哪个部门负责预算"]
    table = "query,relevant\n" + "".join(f"{text},甲.md\n" for text in texts)
    Path("q.csv").write_bytes(table.encode("gb18030"))
    assert [each.text for each in read_data(Path("q.csv")).questions] == texts
    Path("q.csv").write_bytes(b"query,relevant\nwho,a\nwo\xff,b\n")
    with pytest.raises(InputError, match=r"q\.csv:3 is not UTF-8; save the file as UTF-8"):
        read_data(Path("q.csv"))
    Path("q.jsonl").write_bytes(b'{"query": "who", "relevant": ["\xff"]}')
    with pytest.raises(InputError, match=r"q\.jsonl:1 is not UTF-8"):
        read_data(Path("q.jsonl"))


def test_a_beir_folder():
    found = read_data(beir())
    assert [(each.id, each.text, each.relevant) for each in found.questions] == [
        ("q1", "cat?", {"d1": 2, "d2": 0}),
        ("q2", "dog?", {"d2": 1}),
    ]
    assert found.notes == ("1 question of beir/qrels/test.tsv left out: nothing that answers it is named",)
    corpus = Corpus("beir/corpus.jsonl", (Document("d1", "A cat It slept."), Document("d2", "Dogs")))
    assert read_corpus(Path("beir")) == read_corpus(Path("beir/corpus.jsonl")) == corpus


def test_the_split_of_a_beir_folder():
    write(beir(), {"qrels/dev.tsv": "q1\td2\t1\nq2\td1\t1\n"})
    assert read_data(Path("beir"), "dev").questions[0].relevant == {"d2": 1}
    assert read_data(Path("beir")).questions[0].relevant == {"d1": 2, "d2": 0}
    Path("beir/qrels/test.tsv").unlink()
    assert read_data(Path("beir")).questions[0].relevant == {"d2": 1}


def test_a_beir_folder_without_labels_has_questions_all_the_same():
    found = read_data(beir(qrels=None), is_labelled=False)
    assert [(each.id, each.relevant) for each in found.questions] == [("q1", {}), ("q2", {}), ("q3", {})]


def test_pairs_and_labelled_texts():
    pairs = read("sentence1\tsentence2\tscore\na\tb\t4.5\nc\td\t0\n", "p.tsv")
    assert isinstance(pairs, Pairs)
    assert [(each.first, each.second, each.score) for each in pairs.pairs] == [("a", "b", 4.5), ("c", "d", 0)]
    texts = read('{"text": "a", "label": 1, "split": "test"}\n{"text": "b", "label": "x"}\n')
    assert isinstance(texts, LabelledTexts)
    assert [(each.text, each.label, each.split) for each in texts.texts] == [("a", "1", "test"), ("b", "x", None)]


def test_a_text_without_words_is_one_all_the_same():
    """Corpora of BEIR have such: https://github.com/beir-cellar/beir/issues/158."""
    Path("c.jsonl").write_text('{"_id": "a", "title": "", "text": ""}\n{"_id": "b", "text": null}\n')
    assert read_corpus(Path("c.jsonl")).documents == (Document("a", ""), Document("b", ""))


def test_the_files_of_a_folder_are_texts():
    write(Path("notes"), {"b.md": "# B\n\nText", "sub/a.txt": "A", "empty.txt": " \n", "picture.png": b"\x89PNG\r\n"})
    assert read_corpus(Path("notes")).documents == (Document("b.md", "# B\n\nText"), Document("sub/a.txt", "A"))


# What is wrong


LINE = json.dumps({"query": "a", "relevant": ["x"]})


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "q.jsonl has no records in it; questions have 'query' and 'relevant'"),
        (LINE, "q.jsonl has 1 question; to compare columns takes at least 2"),
        (f"{LINE}\n" + '{"query": " ", "relevant": ["x"]}', "q.jsonl:2: 'query' is empty"),
        (f"{LINE}\n" + '{"query": 3, "relevant": ["x"]}', "q.jsonl:2: 'query' must be a text, got 3"),
        (f"{LINE}\n" + '{"query": null, "relevant": ["x"]}', "q.jsonl:2: 'query' must be a text, got null"),
        (f"{LINE}\n" + '{"relevant": ["x"]}', "q.jsonl:2 has no 'query'; its fields are relevant"),
        (f"{LINE}\n" + '{"query": "b"}', "object with grades above 0, got none; without labels there is --agree"),
        (f"{LINE}\n" + '{"query": "b", "relevant": null}', "with grades above 0, got null; without labels"),
        (f"{LINE}\n" + '{"query": "b", "relevant": []}', "with grades above 0, got []; without labels"),
        (f"{LINE}\n" + '{"query": "b", "relevant": {"x": 0}}', "with grades above 0, got {'x': 0}"),
        (f"{LINE}\n" + '{"query": "b", "relevant": {"x": 0.5}}', "with grades above 0, got {'x': 0.5}"),
        ('{"query": "a", "relevant": "x", "id": 1}\n{"query": "b", "relevant": "x", "id": "1"}', "the id '1' twice"),
        (f"{LINE}\n[1]", "q.jsonl:2 is not a JSON object but list"),
        (f"{LINE}\n{{", "q.jsonl:2 is not JSON: "),
        (f"[\n{LINE},\n{LINE}\n]", "the file must be JSON Lines, an object on each line"),
        ("[" * 100_000, "q.jsonl:1 is not JSON: "),
        ('{"query": "a", "relevant": ["\\ud800"]}', "q.jsonl:1 is not JSON: "),
        ('{"question": "a"}\n', "q.jsonl:1 has the fields question; questions have 'query'"),
        ('{"text": "a", "label": true}\n', "q.jsonl:1: 'label' must be a name or a number, got True"),
        ('{"text": "a", "label": "x"}\n{"text": "b", "label": "x"}', "q.jsonl has texts of one label"),
        ('{"text": "a", "label": "x", "split": "dev"}\n', "q.jsonl:1: 'split' must be train or test, got 'dev'"),
        (
            '{"sentence1": "a", "sentence2": "b", "score": "high"}\n',
            "q.jsonl:1: 'score' must be a number, got 'high'",
        ),
        ('{"sentence1": "a", "sentence2": "b", "score": "nan"}\n', "q.jsonl:1: 'score' must be a number, got 'nan'"),
        ('{"sentence1": "a", "sentence2": "b", "score": 1}\n', "q.jsonl has 1 pair of one score"),
    ],
)
def test_a_file_that_is_wrong_is_told_in_a_sentence(content, said):
    with pytest.raises(InputError) as error:
        read(content)
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (
            {"qrels": "q1\td1\t1\nq9\td1\t1\n"},
            "beir/qrels/test.tsv:2: there is no question 'q9' in beir/queries.jsonl",
        ),
        ({"qrels": "q1\td1\t1\nq1\td1\t2\n"}, "beir/qrels/test.tsv:2: question 'q1' has a grade for 'd1' already"),
        ({"qrels": "q1\td1\t1\nq2 d1 1\n"}, "beir/qrels/test.tsv:2 must be a question's id, a text's id and a whole"),
        ({"qrels": "q1\td1\t1\n"}, "beir/qrels/test.tsv has 1 question; to compare columns takes at least 2"),
        ({"qrels": None}, "beir has no qrels/*.tsv"),
        ({"queries": None}, "beir has no queries.jsonl, so it is no BEIR folder"),
        (
            {"queries": '{"_id": "q1", "text": "a"}\n{"_id": "q1", "text": "b"}'},
            "beir/queries.jsonl has the id 'q1' twice",
        ),
        (
            {"queries": '{"_id": "q1", "text": ""}\n{"_id": "q2", "text": "b"}\n{"_id": "q3", "text": "b"}'},
            "beir/queries.jsonl:1: 'text' is empty",
        ),
    ],
)
def test_a_beir_folder_that_is_wrong_is_told_in_a_sentence(changed, said):
    with pytest.raises(InputError) as error:
        read_data(beir(**changed))
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (
            '{"_id": "a", "text": "x"}\n{"_id": "a", "text": "y"}',
            "c.jsonl has the id 'a' twice; give each text an id",
        ),
        ('{"_id": "a", "text": "x"}\n{"_id": "b", "txt": "y"}', "c.jsonl:2 has no 'title' or 'text'; its fields are"),
        ('{"_id": "a", "text": ["x", "y"]}', "c.jsonl:1: 'text' must be a text, got ['x', 'y']"),
        ('{"_id": "a", "title": 3, "text": "x"}', "c.jsonl:1: 'title' must be a text, got 3"),
        ('{"text": "x"}', "c.jsonl:1 has no '_id' or 'id'; its fields are text"),
        ("", "c.jsonl has no texts in it"),
    ],
)
def test_a_corpus_that_is_wrong_is_told_in_a_sentence(content, said):
    Path("c.jsonl").write_text(content)
    with pytest.raises(InputError) as error:
        read_corpus(Path("c.jsonl"))
    assert said in str(error.value)


def test_what_is_not_there():
    with pytest.raises(InputError, match="there is no file or folder nowhere"):
        read_data(Path("nowhere"))
    with pytest.raises(InputError, match="there is no file or folder nowhere"):
        read_corpus(Path("nowhere"))
    with pytest.raises(OptionError, match="split must be one of the qrels of beir: test, got dev"):
        read_data(beir(), "dev")
    with pytest.raises(OptionError, match=r"a split is one of a BEIR folder's qrels, and q\.jsonl is a file"):
        read(QUESTIONS, split="test")
