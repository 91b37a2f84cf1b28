"""How the demo model is trained: the student against the oracle and llama.cpp, the losses against NumPy."""

from __future__ import annotations

import importlib
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import numpy as np
import oracle
import pytest
from demo_scripts import CONFIG, FOLDER, NAMES, imported
from engines import hold
from gguf import GGMLQuantizationType
from gguf.quants import dequantize, quantize

import q3e_local

torch = pytest.importorskip("torch", reason="torch is installed for training only")

MODULES = ("shape", "vocabulary", "gguf_file", "corpus", "student", "sampling", "training")
TEXTS = ["A new invoice", "请打开 invoice", "Query:one\ntwo, and the rest of a longer text", ""]
N_ROWS = 50


@pytest.fixture(scope="module")
def parts() -> Iterator[SimpleNamespace]:
    torch.set_num_threads(1)
    with imported(FOLDER, MODULES, hidden=("make", "words", "teacher")) as found:
        yield found


@pytest.fixture(scope="module")
def make(parts) -> Any:
    """The script itself, which counts words."""
    for name in ("jieba", "wordfreq"):
        with warnings.catch_warnings(action="ignore"):
            pytest.importorskip(name, reason=f"{name} is installed for training only")
    return importlib.import_module("make")


@pytest.fixture(scope="module")
def vocabulary(parts) -> Any:
    words = Counter(dict.fromkeys(["invoice", "new", "the", "rest", "of", "打开", "请"], 100))
    return parts.vocabulary.learn(words, 500)


def random_student(parts: SimpleNamespace, n_rows: int) -> Any:
    """A student all of whose parameters are random, with a sharp attention; in Q8_0 they stay what they are."""
    q8_0 = GGMLQuantizationType.Q8_0
    random = torch.Generator().manual_seed(3)
    student = parts.student.Student(torch.randn(n_rows, 256, generator=random))
    with torch.no_grad():
        for values in student.parameters():
            noise = torch.randn(values.shape, generator=random)
            if values.ndim == 2:
                noise = dequantize(quantize((1.5 * values.shape[1] ** -0.5 * noise).numpy(), q8_0), q8_0)
            values.copy_(torch.as_tensor(noise) if values.ndim == 2 else 1.5 + 0.2 * noise)
    return student.eval()


def weights_of(student: Any) -> oracle.Weights:
    values = {name: each.detach().numpy() for name, each in student.state_dict().items()}
    layers = {f"layers.{i}.{theirs}.weight": values[f"blk.{i}.{n}"] for i in range(2) for n, theirs in NAMES.items()}
    return {"embed_tokens.weight": values["token_embd"], "norm.weight": values["output_norm"]} | layers


def computed(student: Any, texts: list[list[int]], filling: int = 0, width: int | None = None) -> np.ndarray:
    """The student's vectors of texts that end with their end token, filled up on the right."""
    width = width or max(map(len, texts))
    ids = torch.tensor([text + [filling] * (width - len(text)) for text in texts])
    with torch.no_grad():
        return student(ids, torch.tensor([len(text) for text in texts])).numpy()


def random_texts(lengths: list[int], end: int) -> list[list[int]]:
    random = np.random.default_rng(5)
    return [[*random.integers(end, size=length - 1).tolist(), end] for length in lengths]


# The student


def test_the_student_computes_what_the_oracle_does(parts):
    student = random_student(parts, N_ROWS)
    texts = random_texts([1, 2, 7, 40], N_ROWS - 1)
    wanted = np.array([oracle.embed(weights_of(student), CONFIG, text) for text in texts])
    np.testing.assert_allclose(computed(student, texts), wanted, atol=2e-3)


def test_filling_does_not_change_a_vector(parts):
    student = random_student(parts, N_ROWS)
    texts = random_texts([1, 4, 9], N_ROWS - 1)
    filled = computed(student, texts, filling=7, width=30)
    for text, vector in zip(texts, filled, strict=True):
        np.testing.assert_allclose(computed(student, [text])[0], vector, atol=1e-4)


def test_llama_cpp_computes_what_the_student_does(parts, vocabulary, tmp_path):
    tokens = parts.corpus.Tokens(TEXTS, vocabulary)
    student = random_student(parts, len(tokens.row_texts) + 1)
    trained = {name: values.numpy() for name, values in student.state_dict().items()}
    parts.gguf_file.write(tmp_path / "demo.gguf", trained, vocabulary)
    with q3e_local.load(tmp_path / "demo.gguf", n_threads=1) as embedder:
        documents, queries = embedder.embed_documents(TEXTS).vectors, embedder.embed_query(TEXTS[0]).vectors
    end = len(tokens.row_texts)
    hold(documents, computed(student, [[*tokens.encode(text), end] for text in TEXTS]), least=0.999)
    prompt = "Instruct: Given a web search query, retrieve relevant passages that answer the query\nQuery:"
    ids = tokens.rows[tokens.tokenizer.encode(prompt + TEXTS[0]).ids].tolist()
    hold(queries, computed(student, [[*ids, end]]), least=0.999)


def test_the_first_student_has_the_direction_of_the_bag(parts, make):
    random = np.random.default_rng(6)
    words = ["word" * (i + 1) for i in range(150)] + ["字" * (i + 1) for i in range(149)] + [" "]
    vectors = random.standard_normal((300, 384)).astype(np.float32)
    bag = make.first_bag(SimpleNamespace(row_texts=words, flat=random.zipf(1.5, 5000) % 300), vectors)
    student = make.first_student(bag).eval()
    texts = random_texts([3, 4, 5, 6], 300)
    with torch.no_grad():
        summed = np.array([bag(torch.tensor(text[:-1]), torch.tensor([0]))[0].numpy() for text in texts])
    hold(computed(student, texts), summed, least=0.99)


def test_a_bag_sums_its_weighed_rows(parts):
    rows, weights = torch.randn(9, 256), torch.rand(9) + 0.1
    encode = parts.training.bag_encoder(parts.student.Bag(rows, weights).eval(), np.random.default_rng(0))
    texts = [np.array([1, 2, 2]), np.array([8]), np.array([0, 5])]
    wanted = [(rows.numpy()[text] * weights.numpy()[text, None]).sum(axis=0) for text in texts]
    np.testing.assert_allclose(encode(texts).detach().numpy(), wanted, atol=1e-5)


# Losses


def numpy_scores(left: np.ndarray, right: np.ndarray, dim: int) -> np.ndarray:
    a, b = (rows[:, :dim] / np.linalg.norm(rows[:, :dim], axis=1, keepdims=True) for rows in (left, right))
    return a @ b.T / 0.05


def log_softmax(scores: np.ndarray) -> np.ndarray:
    shifted = scores - scores.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def random_rows(n: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, 256)).astype(np.float32)


def test_contrast_is_nothing_where_each_side_is_nearest_to_its_own(parts):
    rows = torch.eye(256)[:8]
    assert parts.training.contrast(3 * rows, rows).item() < 1e-6
    # Each has its own at a right angle and another at none: 20 in each direction, for both dimensions.
    assert parts.training.contrast(rows, rows.roll(1, 0)).item() == pytest.approx(20 * 1.4, rel=1e-3)


def test_contrast_is_that_of_numpy(parts):
    left, right = random_rows(12, 1), random_rows(12, 2)
    wanted = 0.0
    for dim, weight in ((256, 1.0), (64, 0.4)):
        scores = numpy_scores(left, right, dim)
        both = [-np.diag(log_softmax(each)).mean() for each in (scores, scores.T)]
        wanted += weight * sum(both) / 2
    assert parts.training.contrast(*map(torch.from_numpy, (left, right))).item() == pytest.approx(wanted, rel=1e-4)


def test_distillation_is_nothing_where_student_and_teacher_agree(parts):
    rows = torch.from_numpy(random_rows(12, 3))
    rows[:, 64:] = 0  # so that they agree in the first 64 numbers too
    unit = torch.nn.functional.normalize(rows, dim=1)
    assert abs(parts.training.distil(5 * rows, unit).item()) < 1e-5


def test_distillation_is_that_of_numpy(parts):
    ours, theirs = random_rows(12, 4), random_rows(12, 5)
    theirs /= np.linalg.norm(theirs, axis=1, keepdims=True)

    def distribution(rows: np.ndarray, dim: int) -> np.ndarray:
        scores = numpy_scores(rows, rows, dim)
        others = scores[~np.eye(len(rows), dtype=bool)].reshape(len(rows), -1)
        return log_softmax(others)

    right = distribution(theirs, 256)
    wanted = 0.0
    for dim, weight in ((256, 1.0), (64, 0.4)):
        wanted += weight * (np.exp(right) * (right - distribution(ours, dim))).sum() / len(ours)
    assert parts.training.distil(*map(torch.from_numpy, (ours, theirs))).item() == pytest.approx(wanted, rel=1e-3)


def test_targets_are_of_norm_1_and_the_same_whatever_a_language_adds(parts):
    random = np.random.default_rng(7)
    vectors = random.standard_normal((500, 384)) * np.linspace(2, 0.2, 384)
    texts = [f"text {i}" if i % 2 else f"第{i}篇" for i in range(500)]
    chinese = np.arange(500) % 2 == 0
    plain = parts.training.targets(texts, vectors).numpy()
    moved = parts.training.targets(texts, vectors + np.where(chinese, 3.0, -2.0)[:, None]).numpy()
    np.testing.assert_allclose(np.linalg.norm(plain, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(plain @ plain.T, moved @ moved.T, atol=1e-2)
    # The centred vectors in directions of their own, each shrunk by the fourth root of its deviation.
    centred = vectors - np.where(chinese[:, None], vectors[chinese].mean(axis=0), vectors[~chinese].mean(axis=0))
    left, sizes, _ = np.linalg.svd(centred, full_matrices=False)
    kept = left[:, :256] * sizes[:256] ** 0.75
    kept /= np.linalg.norm(kept, axis=1, keepdims=True)
    np.testing.assert_allclose(plain @ plain.T, kept @ kept.T, atol=1e-2)


# Batches


def test_batches_have_every_text_once_and_no_more_tokens_than_allowed(parts):
    lengths = np.random.default_rng(8).integers(1, 700, size=300)
    lengths[17] = 5000  # longer than a batch: it stands alone
    order = np.argsort(lengths)
    found = list(parts.training.batches(lengths, order))
    assert np.concatenate(found).tolist() == order.tolist()
    assert found[-1].tolist() == [17]
    assert max(len(part) * lengths[part].max() for part in found[:-1]) <= 4096
    assert all((len(part) + 1) * lengths[following[0]] > 4096 for part, following in pairwise(found))


def test_texts_come_out_in_the_order_in_which_they_went_in(parts):
    student = random_student(parts, N_ROWS)
    encode = parts.training.transformer_encoder(student, np.random.default_rng(0))
    lengths = np.random.default_rng(9).permutation(np.arange(2, 200, 7)).tolist()
    texts = random_texts(lengths, N_ROWS - 1)
    wanted = np.array([computed(student, [text])[0] for text in texts])
    with torch.no_grad():
        hold(encode([np.array(text[:-1]) for text in texts]).numpy(), wanted, least=0.99)


def test_tokens_of_longer_texts_are_dropped_in_training_only(parts):
    student = random_student(parts, N_ROWS)
    encode = parts.training.transformer_encoder(student, np.random.default_rng(0))
    short, long = np.arange(5), np.arange(40)
    with torch.no_grad():
        in_use = encode([short, *[long] * 9]).numpy()
        student.train()
        in_training = encode([short, *[long] * 9]).numpy()
    assert len(np.unique(in_use.round(1), axis=0)) == 2
    assert len(np.unique(in_training.round(1), axis=0)) > 4
    hold(in_training[0], in_use[0], least=0.999)


@pytest.fixture(scope="module")
def corpus() -> SimpleNamespace:
    """80 examples, 4 of them held back, 30 translations and 210 sentences; each text says what it is."""
    sides = ("en", "zh", "p_en", "p_zh", "q_en", "q_zh")
    written = [[f"{side} {i} " + ("字" if "zh" in side else "word") for side in sides] for i in range(80)]
    return SimpleNamespace(
        pairs={("translation", "here"): [(f"left {i}", f"右 {i}") for i in range(30)]},
        examples=[example for i, example in enumerate(written) if i % 20],
        held_back=written[::20],
        single=[f"sentence {i}" for i in range(210)],
    )


@pytest.fixture(scope="module")
def tokens(parts, vocabulary, corpus) -> Any:
    groups = (corpus.single, *corpus.examples, *corpus.held_back, *corpus.pairs["translation", "here"])
    return parts.corpus.Tokens([text for group in groups for text in group], vocabulary)


@pytest.fixture(scope="module")
def sampler_of(parts, corpus, tokens) -> Callable[[int], Any]:
    """A sampler for a seed; it teaches the sentences."""
    vectors = torch.nn.functional.normalize(torch.from_numpy(random_rows(210, 10)), dim=1)
    return lambda seed: parts.sampling.Sampler(corpus, tokens, np.arange(210), vectors, seed)


def stage_of(parts: SimpleNamespace, **numbers: float) -> Any:
    usual = {"n_pairs": 8, "n_questions": 16, "n_passages": 4, "n_excerpts": 3, "n_taught": 12}
    usual |= {"prompted": 0.5, "distillation": 1.0}
    return parts.sampling.Stage("name", **{"steps": 60, "rates": (3e-2, 1e-2)} | usual | numbers)


def as_lists(batch: Any) -> list[list[list[int]]]:
    return [[text.tolist() for text in texts] for texts in (batch.left, batch.right, batch.taught)]


def test_a_seed_makes_the_same_batches_and_another_seed_others(parts, sampler_of):
    one, same, other = map(sampler_of, (1, 1, 2))
    for _ in range(3):
        batch, again, another = (sampler.batch(stage_of(parts)) for sampler in (one, same, other))
        assert as_lists(batch) == as_lists(again) != as_lists(another)
        assert torch.equal(batch.targets, again.targets)
        assert [len(texts) for texts in as_lists(batch)] == [31, 31, 12]


def test_a_batch_pairs_what_belongs_together_and_leaves_out_what_is_held_back(parts, sampler_of, tokens):
    sampler, learned = sampler_of(3), set()
    texts = {tuple(tokens.rows_of(i).tolist()): text.split() for i, text in enumerate(tokens.texts)}
    for _ in range(40):
        batch = sampler.batch(stage_of(parts, n_passages=0, n_excerpts=0, prompted=0.0))
        for pair in zip(batch.left, batch.right, strict=True):
            left, right = (texts[tuple(text.tolist())] for text in pair)
            assert (left[1], left[0] == right[0]) == (right[1], False)
            learned |= {int(left[1])} if len(left) == 3 else set()
        for text, vector in zip(batch.taught, batch.targets, strict=True):
            assert torch.equal(vector, sampler.vectors[int(texts[tuple(text.tolist())][1])])
    assert learned == {*range(80)} - {0, 20, 40, 60}


def test_an_excerpt_is_asked_for_by_words_of_a_text_in_it_or_by_its_other_side(parts, sampler_of, tokens, corpus):
    sampler, newline, kinds = sampler_of(5), tokens.encode("\n").tolist(), set()
    sides = [
        [tokens.rows_of(tokens.number[text]).tolist() for text in pair]
        for pair in corpus.pairs["translation", "here"]
    ]
    for question, passage in zip(*sampler.some_excerpts(60, 0.0), strict=True):
        wholes = [
            (i, side)
            for i in range(30)
            for side in (0, 1)
            if f"{sides[i][side] + newline}"[1:-1] in f"{passage.tolist()}"
        ]
        side = wholes[0][1]
        assert {each for _, each in wholes} == {side}
        asked = question.tolist()
        kinds |= {"other side" for i, _ in wholes if asked == sides[i][1 - side]}
        kinds |= {"words" for i, _ in wholes if asked and all(row in sides[i][side] for row in asked)}
    assert kinds == {"other side", "words"}


def test_training_brings_the_sides_of_a_pair_together(parts, sampler_of, tokens, monkeypatch):
    monkeypatch.setattr(parts.training, "EVERY", 20)
    sampler, said = sampler_of(4), []
    bag = parts.student.Bag(torch.randn(len(tokens.row_texts), 256) / 16, torch.full([len(tokens.row_texts)], 0.5))
    encode = parts.training.bag_encoder(bag, sampler.random)
    rows = parts.training.train(stage_of(parts), bag, ([bag.rows], [bag.log_weights]), encode, sampler, said.append)
    assert [row["step"] for row in rows] == [20, 40, 60]
    assert rows[-1]["contrast"] < 0.8 * rows[0]["contrast"]
    assert rows == said
    assert {"q_en en", "q_en zh", "q_zh en", "q_zh zh", "distillation", "seconds"} <= rows[0].keys()
