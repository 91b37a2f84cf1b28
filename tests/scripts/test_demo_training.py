"""How the demo model is trained: what averages against oracle and llama.cpp, the losses against NumPy."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import oracle
import pytest
from demo_scripts import CONFIG, FOLDER, NAMES, imported
from engines import hold

import q3e_local

torch = pytest.importorskip("torch", reason="torch is installed for training only")

MODULES = ("shape", "vocabulary", "gguf_file", "corpus", "sampling", "bag", "average", "training")
TEXTS = ["A new invoice", "请打开 invoice", "Query:one\ntwo, and the rest of a longer text"]
N_ROWS = 50


@pytest.fixture(scope="module")
def parts() -> Iterator[SimpleNamespace]:
    torch.set_num_threads(1)
    with imported(FOLDER, MODULES, hidden=("make", "words", "teacher")) as found:
        yield found


@pytest.fixture(scope="module")
def vocabulary(parts) -> Any:
    words = Counter(dict.fromkeys(["invoice", "new", "the", "rest", "of", "打开", "请"], 100))
    return parts.vocabulary.learn(words, 500)


def random_texts(lengths: list[int], n_rows: int) -> list[np.ndarray]:
    random = np.random.default_rng(5)
    return [random.integers(n_rows, size=length) for length in lengths]


def random_bag(parts: SimpleNamespace, n_rows: int) -> Any:
    """A bag of random rows; a heavy token weighs 30 times as much as a light one."""
    random = torch.Generator().manual_seed(3)
    rows = torch.randn(n_rows, parts.shape.N_MEANING, generator=random) / 16
    return parts.bag.Bag(rows, torch.exp(torch.rand(n_rows, generator=random) * 3.4)).eval()


def summed(bag: Any, texts: list[np.ndarray]) -> np.ndarray:
    """The weighted sums of the texts' rows."""
    rows, weights = bag.rows.detach().numpy(), bag.log_weights.detach().exp().numpy()
    return np.array([(rows[text] * weights[text, None]).sum(axis=0) for text in texts])


# The bag, and what averages as it does


def test_a_bag_sums_its_weighed_rows(parts):
    bag = random_bag(parts, 9)
    texts = [np.array([1, 2, 2]), np.array([8]), np.array([0, 5])]
    found = parts.bag.encoder(bag, np.random.default_rng(0))(texts)
    np.testing.assert_allclose(found.detach(), summed(bag, texts), atol=1e-5)


def test_tokens_of_longer_texts_are_dropped_in_training_only(parts):
    bag = random_bag(parts, 40)
    encode = parts.bag.encoder(bag, np.random.default_rng(0))
    short, long = np.arange(5), np.arange(40)
    with torch.no_grad():
        in_use = encode([short, *[long] * 9]).numpy()
        bag.train()
        in_training = encode([short, *[long] * 9]).numpy()
    assert len(np.unique(in_use.round(3), axis=0)) == 2
    assert len(np.unique(in_training.round(3), axis=0)) > 4
    hold(in_training[0], in_use[0], least=0.999)


def test_the_first_bag_has_the_teachers_directions_and_light_frequent_tokens(parts):
    random = np.random.default_rng(6)
    words = ["word" * (i + 1) for i in range(150)] + ["字" * (i + 1) for i in range(146)] + [" ", "，", "7", ""]
    vectors = random.standard_normal((300, 384)) * np.linspace(2, 0.1, 384)
    flat = np.concatenate([np.arange(300), np.zeros(700, int)])  # the first word makes up most of all tokens
    tokens = SimpleNamespace(row_texts=words, shares=lambda: np.bincount(flat) / len(flat))
    bag = parts.bag.first_bag(tokens, vectors)
    centred = np.concatenate([part - part.mean(axis=0) for part in (vectors[:150], vectors[150:296])])
    unit = centred / np.linalg.norm(centred, axis=1, keepdims=True)
    rows = torch.nn.functional.normalize(bag.rows[:296], dim=1).detach().numpy()
    np.testing.assert_allclose(rows @ rows.T, unit @ unit.T, atol=0.1)
    weights = bag.log_weights.exp().detach().numpy()
    assert weights[0] < 0.01 < 0.4 < weights[1:296].min()
    assert weights[296:].tolist() == [0, 0, pytest.approx(0.1 * weights[1]), pytest.approx(0.1 * weights[1])]
    parts.bag.discount(bag, tokens)
    again = bag.log_weights.exp().detach().numpy()
    np.testing.assert_allclose(again[:2] / weights[:2], [1 / (1 + 701 / 1000 / 4e-3), 4 / 5], rtol=1e-4)
    assert again[296:298].tolist() == [0, 0]


def test_the_average_of_bags_sums_as_they_do_on_average(parts):
    bags = [random_bag(parts, 9), random_bag(parts, 9)]
    bags[1].rows.data *= -0.5
    bags[1].log_weights.data += 1
    for bag in bags:
        bag.log_weights.data[4] = -torch.inf
    texts = [np.array([1, 2, 2]), np.array([4]), np.array([0, 4])]
    found = parts.bag.encoder(parts.bag.averaged(bags), np.random.default_rng(0))(texts).detach()
    np.testing.assert_allclose(found, np.mean([summed(bag, texts) for bag in bags], axis=0), atol=1e-5)
    assert not found[1].any()


def test_a_text_of_marks_has_a_direction_of_its_own_also_when_it_is_cut(parts):
    bag = random_bag(parts, N_ROWS)
    bag.log_weights.data[7] = -torch.inf
    parameters = parts.average.parameters(bag)
    weights = {f"layers.0.{theirs}.weight": parameters[f"blk.0.{ours}"] for ours, theirs in NAMES.items()}
    weights |= {"embed_tokens.weight": parameters["token_embd"], "norm.weight": parameters["output_norm"]}
    one, more, other = (oracle.embed(weights, CONFIG, [*ids, N_ROWS])[:64] for ids in ([7], [7, 7, 7], [7, 8]))
    assert np.linalg.norm(one) > 0.01
    hold(one[None], more[None], least=0.999)
    assert one @ other < 0.5 * np.linalg.norm(one) * np.linalg.norm(other)


def test_the_transformer_averages_as_the_bag_in_the_oracle(parts):
    bag = random_bag(parts, N_ROWS)
    parameters, texts = parts.average.parameters(bag), random_texts([3, 4, 5, 60], N_ROWS)
    weights = {f"layers.0.{theirs}.weight": parameters[f"blk.0.{ours}"] for ours, theirs in NAMES.items()}
    weights |= {"embed_tokens.weight": parameters["token_embd"], "norm.weight": parameters["output_norm"]}
    vectors = np.array([oracle.embed(weights, CONFIG, [*text, N_ROWS]) for text in texts])
    n_meaning = parts.shape.N_MEANING
    hold(vectors[:, :n_meaning], summed(bag, texts), least=0.999)
    assert np.abs(vectors[:, n_meaning:]).max() < 0.01


def test_llama_cpp_averages_as_the_bag(parts, vocabulary, tmp_path):
    tokens = parts.corpus.Tokens(TEXTS, vocabulary)
    bag = random_bag(parts, len(tokens.row_texts))
    parts.gguf_file.write(tmp_path / "demo.gguf", parts.average.parameters(bag), vocabulary)
    with q3e_local.load(tmp_path / "demo.gguf", n_threads=1) as embedder:
        documents, queries = embedder.embed_documents(TEXTS).vectors, embedder.embed_query(TEXTS[0]).vectors
    hold(documents[:, :224], summed(bag, [tokens.encode(text) for text in TEXTS]), least=0.999)
    prompt = "Instruct: Given a web search query, retrieve relevant passages that answer the query\nQuery:"
    ids = tokens.rows[tokens.tokenizer.encode(prompt + TEXTS[0]).ids]
    hold(queries[:, :224], summed(bag, [ids]), least=0.999)


# Losses


def numpy_scores(left: np.ndarray, right: np.ndarray, dim: int) -> np.ndarray:
    a, b = (rows[:, :dim] / np.linalg.norm(rows[:, :dim], axis=1, keepdims=True) for rows in (left, right))
    return a @ b.T / 0.08


def log_softmax(scores: np.ndarray) -> np.ndarray:
    shifted = scores - scores.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def random_rows(n: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, 256)).astype(np.float32)


def test_contrast_is_nothing_where_each_side_is_nearest_to_its_own(parts):
    rows = torch.eye(256)[:8]
    assert parts.training.contrast(3 * rows, rows).item() < 1e-4
    # Each has its own at a right angle and another at none: 1 / 0.08 in each direction, for both dimensions.
    assert parts.training.contrast(rows, rows.roll(1, 0)).item() == pytest.approx(12.5 * 2.5, rel=1e-3)


def test_contrast_is_that_of_numpy(parts):
    left, right = random_rows(12, 1), random_rows(12, 2)
    wanted = 0.0
    for dim, weight in ((256, 1.0), (64, 1.5)):
        scores = numpy_scores(left, right, dim)
        both = [-np.diag(log_softmax(each)).mean() for each in (scores, scores.T)]
        wanted += weight * sum(both) / 2
    assert parts.training.contrast(*map(torch.from_numpy, (left, right))).item() == pytest.approx(wanted, rel=1e-4)


def test_distillation_is_nothing_where_bag_and_teacher_agree(parts):
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
    for dim, weight in ((256, 1.0), (64, 1.5)):
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


def recipe_of(parts: SimpleNamespace, **numbers: float) -> Any:
    usual = {"n_pairs": 8, "n_questions": 16, "n_passages": 4, "n_excerpts": 3, "n_taught": 12}
    usual |= {"prompted": 0.5, "distillation": 1.0}
    return parts.sampling.Recipe(**{"steps": 60, "rates": (3e-2, 1e-2)} | usual | numbers)


def as_lists(batch: Any) -> list[list[list[int]]]:
    return [[text.tolist() for text in texts] for texts in (batch.left, batch.right, batch.taught)]


def test_a_seed_makes_the_same_batches_and_another_seed_others(parts, sampler_of):
    one, same, other = map(sampler_of, (1, 1, 2))
    for _ in range(3):
        batch, again, another = (sampler.batch(recipe_of(parts)) for sampler in (one, same, other))
        assert as_lists(batch) == as_lists(again) != as_lists(another)
        assert torch.equal(batch.targets, again.targets)
        assert [len(texts) for texts in as_lists(batch)] == [31, 31, 12]


def test_a_batch_pairs_what_belongs_together_and_leaves_out_what_is_held_back(parts, sampler_of, tokens):
    sampler, learned = sampler_of(3), set()
    texts = {tuple(tokens.rows_of(i).tolist()): text.split() for i, text in enumerate(tokens.texts)}
    for _ in range(40):
        batch = sampler.batch(recipe_of(parts, n_passages=0, n_excerpts=0, prompted=0.0))
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


@pytest.fixture(scope="module")
def frames(parts, tokens) -> dict[str, list[tuple[list[int], list[int]]]]:
    """The rows before and behind words that stand in a question, by language."""
    return {
        language: [(tokens.encode(before).tolist(), tokens.encode(behind).tolist()) for before, behind in each]
        for language, each in parts.sampling.FRAMES.items()
    }


def is_framed(asked: list[int], before: list[int], behind: list[int], text: list[int]) -> bool:
    """Whether rows are those of a frame with some of the text's between them."""
    words = asked[len(before) : len(asked) - len(behind)]
    return asked == [*before, *words, *behind] and bool(words) and set(words) <= set(text)


def test_a_passage_is_asked_for_by_the_question_for_a_note_in_it_or_by_words_of_that_note(sampler_of, tokens, frames):
    sampler, newline, kinds = sampler_of(6), tokens.encode("\n").tolist(), set()
    examples = [[tokens.rows_of(i).tolist() for i in example] for example in sampler.examples]
    every = [frame for each in frames.values() for frame in each]

    def kind(asked: list[int], inside: list[list[list[int]]]) -> str:
        notes = [note for sides in inside for note in sides[:4]]
        if any(asked in sides[4:] for sides in inside):
            return "question"
        if any(is_framed(asked, [], [], note) for note in notes):
            return "words"
        found = any(is_framed(asked, *frame, note) for frame in every for note in notes)
        return "words in a question" if found else "neither"

    for question, passage in zip(*sampler.some_passages(60, 0.0), strict=True):
        texts = f"{passage.tolist()}"
        inside = [sides for sides in examples if any(f"{note + newline}"[1:-1] in texts for note in sides[:4])]
        assert len(inside) >= 3
        kinds.add(kind(question.tolist(), inside))
    assert kinds == {"question", "words", "words in a question"}


@pytest.mark.parametrize(("language", "text"), [("en", "sentence 7"), ("zh", "右 7")])
def test_words_of_a_text_stand_alone_or_as_a_question_of_its_language(sampler_of, tokens, frames, language, text):
    number = tokens.number[text]
    words = tokens.rows_of(number).tolist()
    allowed = [([], []), *frames[language]]
    sampler, used = sampler_of(7), set()
    for _ in range(300):
        asked = sampler.some_words(number).tolist()
        fitting = [i for i, frame in enumerate(allowed) if is_framed(asked, *frame, words)]
        assert fitting
        used.add(fitting[0])
    assert used == {*range(len(allowed))}


def test_training_brings_the_sides_of_a_pair_together(parts, sampler_of, tokens, monkeypatch):
    monkeypatch.setattr(parts.training, "EVERY", 20)
    sampler, said = sampler_of(4), []
    bag = random_bag(parts, len(tokens.row_texts)).train()
    rows = parts.training.train(recipe_of(parts), bag, parts.bag.encoder(bag, sampler.random), sampler, said.append)
    assert [row["step"] for row in rows] == [20, 40, 60]
    assert rows[-1]["contrast"] < 0.8 * rows[0]["contrast"]
    assert rows == said
    assert {"q_en en", "q_en zh", "q_zh en", "q_zh zh", "distillation", "seconds"} <= rows[0].keys()
