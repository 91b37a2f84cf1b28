"""What `EmbedBatches` does with options, with texts that get no vector, and with columns that are not there."""

from __future__ import annotations

import pickle

import numpy as np
import pyarrow as pa
import pytest
from command import demo, expected
from fake_service import served

import q3e_local
from q3e_local import EmbedBatches
from q3e_local.errors import InvalidTextError, ModelNotHereError, OptionError, TextTooLongError
from q3e_local.remote.connection import ServerUnreachableError
from q3e_local.server.local.local_service import LocalService
from q3e_local.server.settings import ServerSettings

TEXTS = ["The neighbour fed the cat.", None, " \n", "cat" * 20, b"cat", "Prices fell in May."]
REASONS = [None, "is missing", "is blank", "has 21 tokens, the limit is 12; truncate it or split it",
           "is not text in UTF-8 but bytes", None]  # fmt: skip


def test_a_text_without_a_vector_has_a_null_and_the_reason():
    embed = EmbedBatches("demo", errors="null", max_tokens=12)
    assert demo().count_tokens(["cat" * 20]) == [21]
    made = embed({"text": list(TEXTS)})
    assert made["embedding_error"] == REASONS
    assert [vector is None for vector in made["embedding"]] == [reason is not None for reason in REASONS]
    good = expected([TEXTS[0], TEXTS[5]]).vectors
    np.testing.assert_allclose([made["embedding"][0], made["embedding"][5]], good, atol=1e-6)

    records = embed([{"text": text} for text in TEXTS] + [{}])
    assert [each["embedding_error"] for each in records] == [*REASONS, "is missing"]
    assert embed([{"id": 1}]) == [{"id": 1, "embedding": None, "embedding_error": "is missing"}]

    table = embed(pa.table({"text": [text if isinstance(text, str) else None for text in TEXTS]}))
    assert table.column("embedding").is_null().to_pylist() == [reason is not None for reason in REASONS]
    assert table.column("embedding_error").to_pylist() == [*REASONS[:4], "is missing", None]


def test_in_an_array_which_has_no_null_the_row_is_nan():
    texts = np.array(["a", None, float("nan")], object)
    made = EmbedBatches("demo", errors="null")({"text": texts})
    assert np.isnan(made["embedding"]).all(axis=1).tolist() == [False, True, True]
    assert made["embedding_error"].tolist() == [None, "is missing", "is missing"]


@pytest.mark.parametrize(("row", "kind"), [(1, InvalidTextError), (2, InvalidTextError), (3, TextTooLongError)])
def test_else_such_a_text_is_an_error_that_says_where_it_is(row, kind):
    with pytest.raises(kind, match=rf"^text 1: {REASONS[row]} \(row 1 of 'text' in the batch; errors='null'"):
        EmbedBatches("demo", max_tokens=12)({"text": ["cat", TEXTS[row], "dog"]})


def test_texts_that_were_cut_are_marked():
    made = EmbedBatches("demo", truncate=True, max_tokens=12)({"text": np.array(["cat", "cat" * 20])})
    assert made["embedding_truncated"].tolist() == [False, True]
    cut = expected(["cat" * 20], truncate=True, max_tokens=12).vectors[0]
    np.testing.assert_allclose(made["embedding"][1], cut, atol=1e-6)


def test_a_list_of_texts_has_no_place_for_either():
    for options in ({"errors": "null"}, {"truncate": True}):
        with pytest.raises(OptionError, match=r"a list of texts has no place .*hand over a dict, {'text': texts}"):
            EmbedBatches("demo", **options)(["a"])


def test_options_are_those_of_a_request():
    # The model of this process may have kept the instruction of an earlier test, rounded to f16; `expected` has not.
    question = EmbedBatches("demo", kind="query", dim=32, instruction="Find the animal")
    wanted = expected(["cat"], kind="query", dim=32, instruction="Find the animal")
    np.testing.assert_allclose(question(["cat"])[0], wanted.vectors[0], atol=3e-3)
    assert question.space == wanted.space
    task = EmbedBatches("demo", task="clustering")(["cat"])[0]
    np.testing.assert_allclose(task, expected(["cat"], task="clustering").vectors[0], atol=3e-3)
    assert np.abs(task - expected(["cat"]).vectors[0]).max() > 0.03


def test_columns_have_the_names_that_were_given():
    made = EmbedBatches("demo", "body", "vector", errors="null", truncate=True)({"body": ["cat"], "text": [""]})
    assert list(made) == ["body", "text", "vector", "vector_truncated", "vector_error"]


def test_a_column_that_is_not_there_or_there_already_is_told():
    with pytest.raises(OptionError, match=r"no column 'text'; it has 'texts'$"):
        EmbedBatches("demo")({"texts": ["a"], "n": [1]})
    with pytest.raises(OptionError, match=r"no column 'text'; it has 'body', 'n'$"):
        EmbedBatches("demo")(pa.table({"body": ["a"], "n": [1]}))
    twice = pa.Table.from_arrays([pa.array(["a"])] * 2, ["text", "text"])
    with pytest.raises(OptionError, match="has 2 columns 'text'; give all but one other names"):
        EmbedBatches("demo")(twice)
    for taken in ("embedding", "embedding_error"):
        with pytest.raises(OptionError, match=f"has a column '{taken}' already; give another name as output"):
            EmbedBatches("demo", errors="null")({"text": ["a"], taken: [0]})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"errors": "ignore"}, "errors must be 'raise' or 'null', got 'ignore'"),
        ({"output": "text"}, "output must not be the column of the texts, 'text'"),
        ({"server": "127.0.0.1:9", "n_threads": 2}, "n_threads is of a model in this process"),
        ({"server": []}, "server names no address; leave it out for a model in this process"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_any_batch(options, message):
    with pytest.raises(OptionError, match=message):
        EmbedBatches("demo", **options)


def test_what_depends_on_the_model_is_refused_with_the_first_batch():
    with pytest.raises(OptionError, match="dim must be between 32 and 256 for demo, got 1024"):
        EmbedBatches("demo", dim=1024)(["a"])
    with pytest.raises(ModelNotHereError, match="q3e-local pull qwen3-embedding:8b"):
        EmbedBatches("qwen3-embedding:8b")(["a"])


def test_it_travels_as_names_and_numbers_and_a_path_for_any_working_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.gguf").write_bytes(b"")
    for embed in (EmbedBatches("demo", dim=64), EmbedBatches("mine.gguf")):
        packed = pickle.dumps(embed)
        assert len(packed) < 1_000
        assert pickle.loads(packed) == embed
    assert EmbedBatches("mine.gguf").model == str(tmp_path / "mine.gguf")
    assert EmbedBatches("mine.gguf", server="127.0.0.1:9").model == "mine.gguf"
    several = EmbedBatches("demo", server=["127.0.0.1:9", "127.0.0.1:10"])
    assert pickle.loads(pickle.dumps(several)) == several
    assert len({several, pickle.loads(pickle.dumps(several))}) == 1


def test_a_server_computes():
    with served(LocalService(ServerSettings(models=("demo",)))) as client:
        url = str(client.base_url).rstrip("/")
        made = EmbedBatches("demo", dim=64, server=url, errors="null")({"text": ["The cat.", None]})
        other = url.replace("127.0.0.1", "localhost")
        shared = EmbedBatches("demo", dim=64, server=[url, other])(["The cat."])
    np.testing.assert_allclose(shared, expected(["The cat."], dim=64).vectors, atol=1e-6)
    np.testing.assert_allclose(made["embedding"][0], expected(["The cat."], dim=64).vectors[0], atol=1e-6)
    assert made["embedding_error"] == [None, "is missing"]


def test_a_server_that_is_not_there_is_an_error_for_the_program_that_deals_out_the_work():
    with pytest.raises(ServerUnreachableError, match="no server answers"):
        EmbedBatches("demo", server="127.0.0.1:9", errors="null")({"text": ["a"]})


def test_it_is_a_public_name_with_the_librarys_default_model():
    assert q3e_local.EmbedBatches().model == q3e_local.DEFAULT_MODEL
