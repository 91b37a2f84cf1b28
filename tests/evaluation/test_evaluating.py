"""What an evaluation says of planted vectors: which column loses, what an interval says, what is computed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from fake_reranker import FakeRerankEngine
from planted import N_EMBD, N_QUESTIONS, corpus, opened, planted, questions, vectors

from q3e_local import Reranker, VectorIndex
from q3e_local.errors import InputError, OptionError
from q3e_local.evaluation import (
    Column,
    Corpus,
    Document,
    Evaluation,
    LabelledText,
    LabelledTexts,
    Models,
    Pair,
    Pairs,
    Question,
    Questions,
    columns,
    evaluate,
)
from q3e_local.vectors import finish, to_binary, to_int8


def evaluated(of: Mapping[str, np.ndarray], compared: tuple[Column, ...], **options) -> Evaluation:
    return evaluate(questions(), compared, corpus=corpus(), models=opened(planted(of)), **options)


# What loses, and what the interval says


def test_a_dim_that_cuts_off_what_tells_passages_apart_loses_and_the_interval_says_so():
    found = evaluated(vectors(N_EMBD - 64), columns(dims=(256, 128, 64)))
    whole, half, little = found.results
    assert whole.measures["ndcg_at_10"] > 0.95
    assert little.measures["ndcg_at_10"] < 0.4
    assert little.differences["ndcg_at_10"].high < -0.4
    assert found.verdict(little) == "worse"
    assert [result.vector_bytes for result in (whole, half, little)] == [1024, 512, 256]
    assert found.names == ("dim 256", "dim 128", "dim 64")


def test_a_dim_that_keeps_what_tells_them_apart_is_no_difference_that_so_many_questions_can_show():
    found = evaluated(vectors(N_EMBD), columns(dims=(256, 192)))
    assert found.verdict(found.results[1]) == "no difference that 40 questions can show"
    assert found.verdict(found.results[0]) == ""


def test_measures_are_those_of_the_ranking_by_cosine():
    """Against NumPy: the rank of a question's one answer gives all four measures."""
    of = vectors(40)
    passages = np.array([of[f"passage {i}"] for i in range(N_QUESTIONS)])
    asked = np.array([of[f"question {i}"] for i in range(N_QUESTIONS)])
    for dim in (256, 100):
        cut = [rows[:, :dim] / np.linalg.norm(rows[:, :dim], axis=1, keepdims=True) for rows in (asked, passages)]
        scores = cut[0] @ cut[1].T
        ranks = 1 + (scores > scores.diagonal()[:, None]).sum(axis=1)
        in_ten = ranks <= 10
        (result,) = evaluated(of, (Column(dim=dim),)).results
        assert result.measures["recall_at_10"] == pytest.approx(in_ten.mean())
        assert result.measures["mrr_at_10"] == pytest.approx((in_ten / ranks).mean())
        assert result.measures["ndcg_at_10"] == pytest.approx((in_ten / np.log2(1 + ranks)).mean())
        assert result.measures["map"] == pytest.approx((1 / ranks).mean())


def test_dtypes_compare_as_stores_do():
    """Bits by Hamming distance, int8 by the cosine of the codes, against NumPy on the packed forms."""
    of = vectors(40)
    passages = finish(np.array([of[f"passage {i}"] for i in range(N_QUESTIONS)], np.float32), 64)
    asked = finish(np.array([of[f"question {i}"] for i in range(N_QUESTIONS)], np.float32), 64)
    bits = [np.unpackbits(to_binary(rows), axis=1).astype(int) for rows in (asked, passages)]
    near = -np.abs(bits[0][:, None] - bits[1][None]).sum(axis=2)
    codes = [to_int8(rows)[0].astype(float) for rows in (asked, passages)]
    cosines = codes[0] @ codes[1].T / np.outer(*(np.linalg.norm(each, axis=1) for each in codes))
    found = evaluated(of, columns(dims=(64,), dtypes=("int8", "binary")))
    for result, scores in zip(found.results, (cosines, near), strict=True):
        own = scores.diagonal()[:, None]
        best, worst = 1 + (scores > own).sum(axis=1), (scores >= own).sum(axis=1)  # equal ones may stand either way
        low, high = ((ranks <= 10).mean() for ranks in (worst, best))
        assert low <= result.measures["recall_at_10"] <= high
    assert [result.vector_bytes for result in found.results] == [64, 8]


def test_equal_scores_favour_neither_the_first_passages_nor_the_first_names():
    """Where every passage looks the same, an answer is among the first ten of 40 as often as chance has it."""
    flat = dict.fromkeys([f"{what} {i}" for what in ("passage", "question") for i in range(N_QUESTIONS)], np.ones(64))
    (result,) = evaluated(flat, (Column(),)).results
    assert result.measures["recall_at_10"] == 10 / N_QUESTIONS  # the same ten for every question
    first = Questions(tuple(Question(str(i), f"question {i}", {f"p{i}": 1}, "") for i in range(10)))
    of_first = evaluate(first, corpus=corpus(), models=opened(planted(flat))).results[0]
    assert of_first.measures["recall_at_10"] < 0.8


def test_passages_that_equal_words_find_are_not_cut_off_in_the_order_of_the_file():
    same = Corpus("same", tuple(Document(f"p{i}", "the same words") for i in range(N_QUESTIONS)))
    first = Questions(tuple(Question(str(i), "words", {f"p{i}": 1}, "") for i in range(10)))
    (result,) = evaluate(first, (Column(mode="words"),), corpus=same).results
    assert result.measures["recall_at_10"] < 0.8


def test_other_names_change_nothing_where_scores_are_equal():
    flat = dict.fromkeys([f"{what} {i}" for what in ("passage", "question") for i in range(N_QUESTIONS)], np.ones(64))
    measured = []
    for prefix in ("p", "elsewhere/p"):
        texts = Corpus("texts", tuple(Document(f"{prefix}{i}", f"passage {i}") for i in range(N_QUESTIONS)))
        asked = Questions(tuple(Question(str(i), f"question {i}", {f"{prefix}{i}": 1}, "") for i in range(10)))
        measured.append(evaluate(asked, corpus=texts, models=opened(planted(flat))).results[0].measures)
    assert measured[0] == measured[1]


def test_of_one_column_there_is_nothing_to_compare():
    found = evaluated(vectors(N_EMBD), (Column(),))
    assert found.results[0].differences == {}
    assert found.what == "40 questions, 40 passages of planted texts, by planted"
    assert repr(found) == f"<Evaluation: 1 column, {found.what}>"
    assert "nDCG@10" in found._repr_html_()


def test_few_items_are_said_to_be_few():
    few = evaluate(questions(3), corpus=corpus(), models=opened(planted(vectors(N_EMBD))))
    assert few.notes == ("fewer than 20 questions: the intervals are narrower than they should be",)
    assert evaluated(vectors(N_EMBD), (Column(),)).notes == ()


# Models, and what is computed


def test_every_text_is_computed_once_for_all_columns_of_a_model():
    model = planted(vectors(N_EMBD))
    compared = columns(dims=(256, 64), dtypes=("float32", "binary"), modes=("vectors", "hybrid"))
    assert len(evaluate(questions(), compared, corpus=corpus(), models=opened(model)).results) == 8
    timed = 5  # questions that are embedded once more, to see how long that takes
    assert sorted(model.engine.decoded) == sorted(
        [f"{what} {i}" for what in ("passage", "question") for i in range(N_QUESTIONS)]
        + [f"question {i}" for i in range(timed)]
    )


def test_a_question_has_its_instruction_and_a_passage_none():
    model = planted(vectors(N_EMBD))
    compared = columns(instructions=(None, "none", "code", "Find it"))
    found = evaluate(questions(), compared, corpus=corpus(), models=opened(model))
    before = {prompt.removesuffix("question 7") for prompt in model.engine.prompts if prompt.endswith("question 7")}
    web = "Given a web search query, retrieve relevant passages that answer the query"
    code = "Given a question about coding, retrieval code or passage that can solve user's question"
    assert before == {"", *(f"Instruct: {each}\nQuery:" for each in (web, code, "Find it"))}
    assert "passage 7" in model.engine.prompts
    assert found.names == ("usual instruction", "no instruction", "code", "Find it")


def test_models_are_columns_each_opened_once():
    good, bad = planted(vectors(N_EMBD)), planted(vectors(0))
    bad.model = "other"
    loaded: list[str | None] = []
    models = opened(good, bad)

    def load(name: str | None):
        loaded.append(name)
        return models.load(name)

    compared = columns(models=("planted", "other"), dims=(256, 128))
    found = evaluate(questions(), compared, corpus=corpus(), models=Models(load))
    assert loaded == ["planted", "other"]
    assert [found.verdict(result) for result in found.results[2:]] == ["worse", "worse"]
    assert found.names == ("planted, dim 256", "planted, dim 128", "other, dim 256", "other, dim 128")


@pytest.mark.parametrize("data", [questions(), None], ids=["questions", "pairs"])
def test_two_files_of_one_name_are_told_apart_by_their_paths(data):
    """Both columns had one name, and nobody could say which file was better."""
    of = vectors(N_EMBD)

    def load(name: str | None):
        embedder = planted(of)
        embedder.model = "model"
        return embedder

    searched = {"corpus": corpus()} if data is not None else {}
    if data is None:
        texts = [f"passage {i}" for i in range(10)]
        data = Pairs(tuple(Pair(text, f"question {i}", float(i), "") for i, text in enumerate(texts)))
    found = evaluate(
        data, columns(models=("a/model.gguf", "b/model.gguf"), dims=(256, 128)), models=Models(load), **searched
    )
    expected = ("a/model.gguf, dim 256", "a/model.gguf, dim 128", "b/model.gguf, dim 256", "b/model.gguf, dim 128")
    assert found.names == expected
    alone = evaluate(data, columns(models=("a/model.gguf",)), models=Models(load), **searched)
    assert alone.names == ("model, vectors",)


def test_the_vectors_of_an_index_serve_its_own_model_alone():
    of = vectors(N_EMBD)
    model, other = planted(of), planted(of)
    other.model, other.engine.digest = "other", "0b" * 32
    with VectorIndex("own.q3e", model, dim=128) as index:
        index.add([f"passage {i}" for i in range(N_QUESTIONS)], [f"p{i}" for i in range(N_QUESTIONS)])
    model.engine.decoded.clear()

    def run(*compared: Column) -> Evaluation:
        return evaluate(questions(), compared, index=Path("own.q3e"), models=opened(model, other))

    found = run(Column("planted"), Column("planted", dim=64))
    assert not [text for text in model.engine.decoded if text.startswith("passage")]
    assert [result.column.dim for result in found.results] == [128, 64]
    longer = run(Column("planted", dim=256))  # more numbers than the index has: its texts are embedded
    assert [text for text in model.engine.decoded if text.startswith("passage")]
    elsewhere = run(Column("other"))
    assert "passage 0" in other.engine.decoded
    assert elsewhere.results[0].measures == longer.results[0].measures
    assert elsewhere.results[0].column.dim == 256


def test_a_search_by_words_needs_no_model_and_is_there_once():
    asked = Questions(tuple(Question(str(i), f"passage {i}", {f"p{i}": 1}, "") for i in range(30)))

    def load(name: str | None):
        raise AssertionError("a model was loaded")

    compared = columns(dims=(256, 64), modes=("words",))
    assert len(compared) == 1
    (result,) = evaluate(asked, compared, corpus=corpus(), models=Models(load)).results
    assert result.measures["recall_at_10"] == 1
    assert (result.column.model, result.column.dim, result.vector_bytes) == (None, None, None)


def test_a_reranker_orders_the_first_hits_of_each_column():
    """The fake reranker likes "!" best: where the answer alone has one, it comes first, if it is among those read."""
    of = {name.replace("passage 7", "passage 7!"): vector for name, vector in vectors(0).items()}
    texts = Corpus("texts", tuple(Document(f"p{i}", f"passage {i}{'!' * (i == 7)}") for i in range(N_QUESTIONS)))
    asked = Questions(tuple(Question(str(i), f"question {i}", {"p7": 1}, "") for i in range(30)))
    reranker = Reranker(FakeRerankEngine(), "fake-reranker")
    found = evaluate(asked, columns(reranks=(10, 40)), corpus=texts, models=opened(planted(of), reranker=reranker))
    plain, ten, all_ = found.results
    assert plain.measures["mrr_at_10"] < ten.measures["mrr_at_10"] < all_.measures["mrr_at_10"] == 1
    assert ten.measures["mrr_at_10"] == plain.measures["recall_at_10"]  # first where it was among ten, else not
    assert found.names == ("no reranker", "rerank 10", "rerank 40")
    assert all_.seconds > plain.seconds


def test_a_passage_that_the_reranker_fails_on_is_named():
    reranker = Reranker(FakeRerankEngine(bad="passage 7"), "fake-reranker")
    with pytest.raises(InputError, match="p7 the fake has no number for this text"):
        evaluate(
            questions(), columns(reranks=(40,)), corpus=corpus(),
            models=opened(planted(vectors(N_EMBD)), reranker=reranker),
        )  # fmt: skip


def test_agreement_needs_no_labels():
    unlabelled = Questions(tuple(Question(str(i), f"question {i}", {}, "") for i in range(N_QUESTIONS)))
    found = evaluate(
        unlabelled, columns(dims=(256, 64)), corpus=corpus(), models=opened(planted(vectors(N_EMBD))), agree=True
    )
    first, cut = found.results
    assert first.measures == {"agree_at_10": 1}
    assert 0.3 < cut.measures["agree_at_10"] < 0.9
    assert found.verdict(cut) == ""


# Pairs and classes


def test_pairs_are_ranked_by_their_cosines():
    rng = np.random.default_rng(5)
    of, pairs = {}, []
    for i in range(40):
        a, b = rng.normal(size=(2, 128))
        b[64:] = a[64:] * i / 40 + b[64:] * (
            1 - i / 40
        )  # the more alike the higher the score, in the last half alone
        of |= {f"a{i}": a, f"b{i}": b}
        pairs.append(Pair(f"a{i}", f"b{i}", i, f"pairs:{i}"))
    found = evaluate(Pairs(tuple(pairs)), columns(dims=(128, 64)), models=opened(planted(of)))
    whole, half = (result.measures["spearman"] for result in found.results)
    assert whole > 0.85
    assert abs(half) < 0.5
    assert found.verdict(found.results[1]) == "worse"
    assert (found.what, found.timed) == ("40 pairs, by planted", "text")


@pytest.mark.parametrize(("kind", "measure"), [("classification", "accuracy"), ("clustering", "v_measure")])
def test_classes_that_lie_apart_are_told_apart_until_a_cut_takes_them_together(kind, measure):
    rng = np.random.default_rng(5)
    of, texts = {}, []
    for i in range(90):
        of[f"t{i}"] = np.concatenate([rng.normal(size=64), 4 * np.eye(3)[i % 3].repeat(22)[:64]])
        texts.append(LabelledText(f"t{i}", "abc"[i % 3], None, f"texts:{i}"))
    found = evaluate(LabelledTexts(tuple(texts)), columns(dims=(128, 64)), kind=kind, models=opened(planted(of)))
    whole, half = (result.measures[measure] for result in found.results)
    assert whole > 0.95
    assert half < 0.5
    assert found.verdict(found.results[1]) == "worse"
    assert found.n_items == {"classification": 45, "clustering": 90}[kind]


# What does not go together


PAIRS = Pairs((Pair("a", "b", 1, ""), Pair("b", "c", 2, "")))
CLASSES = LabelledTexts((LabelledText("a", "x", None, "f:1"), LabelledText("b", "y", None, "f:2")))

SPLIT = LabelledTexts((LabelledText("a", "x", "train", "f:1"), LabelledText("b", "y", "test", "f:2")))


@pytest.mark.parametrize(
    ("data", "options", "error", "said"),
    [
        (questions(), {}, OptionError, "of an index or a corpus; give one"),
        (questions(), {"index": Path("a"), "corpus": corpus()}, OptionError, "one index or one corpus"),
        (questions(), {"corpus": corpus(), "kind": "sts"}, OptionError, "as retrieval, not as sts"),
        (questions(), {"corpus": corpus(), "columns": ()}, OptionError, "one column at least"),
        (questions(), {"corpus": corpus(), "columns": (Column(), Column())}, OptionError, "twice"),
        (questions(), {"corpus": corpus(3)}, InputError, "asked:3 names 'p3', which is not in planted texts"),
        (questions(), {"corpus": corpus(), "columns": (Column(dim=512),)}, OptionError, "between 32 and 256"),
        (PAIRS, {"corpus": corpus()}, OptionError, "give no index or corpus"),
        (PAIRS, {"agree": True}, OptionError, "agreement is for questions"),
        (PAIRS, {"kind": "clustering"}, OptionError, "as sts, not as clustering"),
        (PAIRS, {"columns": (Column(mode="words"),)}, OptionError, "for questions; leave them out"),
        (CLASSES, {}, InputError, "'x' has one text; a classifier needs one"),
        (CLASSES, {"kind": "sts"}, OptionError, "classification or clustering"),
        (SPLIT, {}, InputError, "the label 'x' has texts to train on or texts to test, and needs both"),
    ],
)
def test_what_does_not_go_together_is_refused(data, options, error, said):
    with pytest.raises(error, match=said):
        evaluate(data, models=opened(planted(vectors(N_EMBD))), **options)


@pytest.mark.parametrize("options", [{"mode": "fast"}, {"dtype": "int4"}, {"instruction": " "}])
def test_what_is_no_column_is_refused(options):
    with pytest.raises(OptionError):
        Column(**options)


def test_a_text_without_a_vector_is_named():
    of = vectors(N_EMBD) | {"passage 4": np.zeros(N_EMBD)}
    model = planted(of)
    with pytest.raises(InputError, match="p4 the first 256 numbers of its vector are all 0"):
        evaluate(questions(), corpus=corpus(), models=opened(model))
