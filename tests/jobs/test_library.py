"""The jobs' functions give what plain NumPy, or the eye, gives."""

from __future__ import annotations

import sys
from itertools import combinations

import numpy as np
import pytest
from fake import FakeEngine
from hypothesis import given
from hypothesis import strategies as st
from job_texts import rows, themes, unit

from q3e_local import Embedder, EmbedRequest, jobs
from q3e_local.embedding.prompts import Prompts
from q3e_local.errors import MissingPackageError, OptionError
from q3e_local.jobs import grouping, matching
from q3e_local.vectors import finish


def groups_of_pairs(n: int, pairs: list[tuple[int, int]]) -> set[frozenset[int]]:
    """Groups of two and more that pairs join, found by repeating until nothing changes."""
    label = list(range(n))
    changed = True
    while changed:
        changed = False
        for i, j in pairs:
            if label[i] != label[j]:
                label[i] = label[j] = min(label[i], label[j])
                changed = True
    groups = {frozenset(i for i in range(n) if label[i] == lowest) for lowest in set(label)}
    return {group for group in groups if len(group) > 1}


def test_similar_gives_every_score_and_shows_texts_as_texts():
    found = jobs.similar(unit(0, 60, 90), ["a", "<b>x</b>", "c"])
    assert np.allclose(found.scores, [[1, 0.5, 0], [0.5, 1, np.sqrt(0.75)], [0, np.sqrt(0.75), 1]], atol=1e-6)
    shown = found._repr_html_()
    assert "&lt;b&gt;x&lt;/b&gt;" in shown
    assert "<b>" not in shown


@pytest.mark.parametrize("dim", [8, 300], ids=["whole rows", "a quarter of each first"])
@pytest.mark.parametrize("threshold", [-1.0, 0.3, 0.8, 0.97])
def test_duplicates_are_those_of_all_pairs(dim, threshold, monkeypatch):
    monkeypatch.setattr(grouping, "_BLOCK", 16)  # blocks show in no result; usual ones are larger than these rows
    vectors, _ = themes([9, 1, 20, 5, 1, 30, 4], noise=0.4, dim=dim)
    vectors = vectors[np.random.default_rng(5).permutation(len(vectors))]
    exact = vectors.astype(np.float64) @ vectors.T.astype(np.float64)
    pairs = [(i, j) for i, j in combinations(range(len(vectors)), 2) if exact[i, j] >= threshold]
    found = jobs.duplicates(vectors, threshold)
    assert {frozenset(group.rows) for group in found.groups} == groups_of_pairs(len(vectors), pairs)
    for group in found.groups:
        inside = exact[np.ix_(group.rows, group.rows)]
        assert group.lowest == pytest.approx(inside.min(), abs=1e-5)
        assert group.representative == group.rows[np.argmax(inside.sum(axis=1) >= inside.sum(axis=1).max() - 1e-4)]
        assert np.allclose(group.scores, exact[group.representative, list(group.rows)], atol=1e-5)


def test_rows_that_differ_only_late_are_compared_by_all_their_numbers():
    """All that the first quarter leaves open is in the length of the rest, and here that is everything."""
    late = np.concatenate([np.zeros((40, 100), np.float32), rows(40, 300)], axis=1)
    near = np.concatenate([late[:, :100], finish(late[:, 100:] + 0.1 * rows(40, 300, seed=1))], axis=1)
    found = jobs.duplicates(np.concatenate([late, near]), 0.97)
    assert sorted(group.rows for group in found.groups) == [(n, n + 40) for n in range(40)]


def test_copies_count_when_the_nearest_to_all_is_chosen():
    (group,) = jobs.duplicates(unit(0, 10, 20, 0, 0, 0, 0), 0.9, ["a", "b", "c", "a", "a", "a", "a"]).groups
    assert (group.representative, group.is_copy) == (0, (True, False, False, True, True, True, True))
    (group,) = jobs.duplicates(unit(0, 10, 20), 0.9).groups
    assert group.representative == 1


def test_a_chain_is_one_group_that_says_how_far_its_ends_are_apart():
    (group,) = jobs.duplicates(unit(0, 10, 20, 30, 90), np.cos(np.radians(11))).groups
    assert group.rows == (0, 1, 2, 3)
    assert group.lowest == pytest.approx(np.cos(np.radians(30)), abs=1e-6)
    assert group.representative in (1, 2)


def test_equal_texts_are_duplicates_whatever_their_vectors_and_are_marked_as_copies():
    texts = ["caf\u00e9", "x", "cafe\u0301", "y", "x"]
    found = jobs.duplicates(unit(0, 90, 180, 91, 270), 0.99, texts)
    assert [(group.rows, group.is_copy) for group in found.groups] == [
        ((1, 3, 4), (True, False, True)),
        ((0, 2), (True, True)),
    ]
    assert found.groups[1].lowest == 1
    assert found.n_redundant == 3


def test_rows_that_are_all_near_are_one_group():
    alike = np.repeat(rows(1, 32), 3000, axis=0)
    (group,) = jobs.duplicates(alike, 0.99).groups
    assert (len(group.rows), group.representative, group.lowest, all(group.is_copy)) == (3000, 0, 1, True)
    (group,) = jobs.duplicates(finish(alike + 0.001 * rows(3000, 32, seed=1)), 0.99).groups
    assert (len(group.rows), sum(group.is_copy)) == (3000, 1)


@given(st.lists(st.tuples(st.integers(0, 19), st.integers(0, 19)), max_size=40), st.integers(1, 20))
def test_what_pairs_join_in_any_order_is_a_group(pairs, n_rows):
    """The rows of a pair have a score of 0.05, all others of 0; any number of rows makes a block."""
    scores = np.eye(20)
    for left, right in pairs:
        if left != right:
            scores[left, right] = scores[right, left] = 0.05
    vectors = finish(np.linalg.cholesky(scores).astype(np.float32))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(grouping, "_BLOCK", n_rows)  # the order in which pairs come shows in no result
        found = jobs.duplicates(vectors, 0.025).groups
    assert {frozenset(group.rows) for group in found} == groups_of_pairs(20, pairs)


@pytest.mark.parametrize("n_scores", [1, 50, 10_000])
def test_matches_are_those_of_all_scores(n_scores, monkeypatch):
    monkeypatch.setattr(matching, "_BLOCK_SCORES", n_scores)  # blocks show in no result; usual ones are larger
    texts, phrases = rows(23, 16), rows(11, 16, seed=1)
    scores = texts @ phrases.T
    best = np.argsort(-scores, axis=1)
    found = jobs.match(texts, phrases, threshold=0.4, top=3)
    assert np.array_equal(found.nearest, best[:, :3])
    assert np.allclose(found.scores, np.take_along_axis(scores, best[:, :3], axis=1))
    assert np.array_equal(found.is_match, scores.max(axis=1) >= 0.4)
    assert np.allclose(found.margin, found.scores[:, 0] - found.scores[:, 1])


def test_one_phrase_has_no_margin():
    found = jobs.match(unit(0, 90), unit(0), 0.5)
    assert np.isnan(found.margin).all()
    assert found.is_match.tolist() == [True, False]
    assert "no match" in found._repr_html_()


@pytest.mark.parametrize(
    ("sizes", "noise"), [([20, 20, 20], 0.5), ([7, 30, 12, 50, 9], 1.5), ([40], 1.0), ([3, 3], 0.1)]
)
def test_chapters_begin_where_the_theme_changes(sizes, noise):
    vectors, _ = themes(sizes, noise, dim=512)
    begins = np.concatenate([[0], np.cumsum(sizes)[:-1]]).tolist()
    found = jobs.chapters(vectors).chapters
    assert [chapter.first for chapter in found] == begins
    assert [chapter.last for chapter in found] == [*(begin - 1 for begin in begins[1:]), sum(sizes) - 1]
    for chapter in found:
        inside = vectors[chapter.first : chapter.last + 1]
        assert chapter.central[0] - chapter.first == np.argmax(inside @ inside.sum(axis=0))


def test_of_two_lines_the_first_is_most_central_however_their_scores_are_rounded():
    """Both are equally near to their centre."""
    for seed in range(100):
        (chapter,) = jobs.chapters(rows(2, 256, seed=seed), 1).chapters
        assert chapter.central == (0, 1)


def test_one_strange_line_makes_no_chapter():
    vectors, _ = themes([21], noise=1.0, dim=512)
    vectors[10] = rows(1, 512, seed=9)
    assert len(jobs.chapters(vectors).chapters) == 1


def test_chapters_may_be_counted_and_cover_everything():
    vectors = rows(30, 16)
    for n in (1, 2, 7, 30):
        found = jobs.chapters(vectors, n).chapters
        assert len(found) == n
        assert [row for chapter in found for row in range(chapter.first, chapter.last + 1)] == list(range(30))


def test_merging_neighbours_by_ward_is_that_of_trying_every_pair():
    """By the definition: of all neighbours, merge those whose merging adds least to the squared distances."""
    vectors = rows(25, 12, seed=3)

    def scatter(first: int, end: int) -> float:
        return float(((vectors[first:end] - vectors[first:end].mean(axis=0)) ** 2).sum())

    bounds = list(range(26))
    while len(bounds) > 6:  # five chapters
        costs = [
            scatter(a, c) - scatter(a, b) - scatter(b, c)
            for a, b, c in zip(bounds, bounds[1:], bounds[2:], strict=False)
        ]
        del bounds[int(np.argmin(costs)) + 1]
    assert [chapter.first for chapter in jobs.chapters(vectors, 5).chapters] == bounds[:-1]


@pytest.mark.parametrize("k", [None, 4])
def test_clusters_are_the_themes_largest_first(k):
    vectors, labels = themes([30, 12, 20, 8], noise=0.7)
    order = np.random.default_rng(2).permutation(len(vectors))
    found = jobs.cluster(vectors[order], k)
    assert [len(group.rows) for group in found.clusters] == [30, 20, 12, 8]
    for label, group in enumerate(found.clusters):
        assert set(np.flatnonzero(found.labels == label)) == set(group.rows)
        assert len({labels[order][row] for row in group.rows}) == 1
        centre = finish(vectors[order][list(group.rows)].sum(axis=0, keepdims=True))[0]
        assert np.allclose(group.scores, sorted(vectors[order][list(group.rows)] @ centre, reverse=True), atol=1e-5)
    if k is None:
        assert found.silhouette == dict(found.tried)[4]
    assert np.array_equal(found.labels, jobs.cluster(vectors[order], k).labels)


def test_the_number_of_themes_is_found_among_many_texts():
    vectors, _ = themes([300, 250, 200, 150, 100], noise=1.2, dim=256)
    assert [len(group.rows) for group in jobs.cluster(vectors).clusters] == [300, 250, 200, 150, 100]


@pytest.mark.parametrize("n", [1, 2, 5])
def test_texts_that_are_all_alike_are_one_cluster_and_one_chapter(n):
    vectors = np.repeat(rows(1, 32), n, axis=0)
    assert [len(group.rows) for group in jobs.cluster(vectors).clusters] == [n]
    assert len(jobs.chapters(vectors).chapters) == 1


def test_an_inspection_has_the_facts_of_the_vector():
    found = jobs.inspect(np.array([3, -4, 0, 1], np.float32), n_bins=2)
    assert (found.dim, found.lowest, found.highest) == (4, -4, 3)
    assert found.norm == pytest.approx(np.sqrt(26))
    assert (found.mean, found.spread) == (0, pytest.approx(np.sqrt(6.5)))
    assert (found.counts, found.edges) == ((1, 3), (-4, -0.5, 3))


def test_an_embed_result_is_a_table_in_a_notebook():
    embedder = Embedder(FakeEngine(), "<fake>", Prompts())
    shown = embedder.embed_documents(["abc", "x" * 40] + ["y"] * 118, truncate=True, max_tokens=30)._repr_html_()
    assert "120 vectors of 64 numbers, 270 tokens, &lt;fake&gt;" in shown
    assert "<td>1</td><td>30</td><td>cut</td>" in shown
    assert "and 20 more rows" in shown


def test_what_the_model_saw_is_prompted_normalized_cut_and_ended():
    embedder = Embedder(FakeEngine(), "fake", Prompts())
    request = EmbedRequest((), "query", instruction="Hi", truncate=True, max_tokens=23)
    found = jobs.seen(embedder, "e\u0301!", request)
    assert found.text == "Instruct: Hi\nQuery:\u00e9!"
    assert [token.piece for token in found.tokens] == [*"Instruct: Hi\nQuery:", "<0xC3>", "<0xA9>", "!", "<end>"]
    assert (found.n_left_out, found.is_renormalized) == (0, True)
    assert jobs.seen(embedder, "x" * 30, request).n_left_out == 27
    assert not jobs.seen(embedder, "\u00e9", request).is_renormalized


VECTORS = unit(0, 90, 45)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: jobs.similar(VECTORS.astype(np.float64)), "must be a float32 array of shape (n, dim), got float64"),
        (lambda: jobs.similar([[1.0]]), "got list"),
        (lambda: jobs.similar(VECTORS[0]), "float32 of shape (2,)"),
        (lambda: jobs.similar(VECTORS[:0]), "at least 1 rows, got 0"),
        (lambda: jobs.similar(np.repeat(VECTORS, 4000, axis=0)), "a matrix of 12,000 texts is too large"),
        (lambda: jobs.similar(VECTORS, ["a"]), "for each of the 3 rows, got 1"),
        (lambda: jobs.duplicates(VECTORS * 2, 0.5), "row 0 has length 2"),
        (lambda: jobs.duplicates(np.array([[1, 0], [np.nan, 1]], np.float32)), "row 1 has length nan"),
        (lambda: jobs.duplicates(VECTORS, 1.1), "threshold must be between -1 and 1, got 1.1"),
        (lambda: jobs.duplicates(VECTORS, float("nan")), "got nan"),
        (lambda: jobs.match(VECTORS, rows(2, 3)), "texts have 2 numbers a row, phrases 3"),
        (lambda: jobs.match(VECTORS, VECTORS[:0]), "phrases must have at least 1 rows"),
        (lambda: jobs.match(VECTORS, VECTORS, top=1), "top must be at least 2"),
        (lambda: jobs.filter_pairs(VECTORS, VECTORS[:2], 0.5), "got 3 and 2"),
        (lambda: jobs.cluster(VECTORS, 4), "k must be between 1 and the number of texts, 3, got 4"),
        (lambda: jobs.cluster(VECTORS[[0, 0, 1]], 3), "at most the number of different texts, 2, got 3"),
        (lambda: jobs.chapters(VECTORS, 4), "that of the texts, 3, got 4"),
        (lambda: jobs.inspect(np.array([1, np.inf], np.float32)), "number 1 of the vector is inf"),
        (lambda: jobs.inspect(VECTORS), "takes one vector of floats (dim,), got float32 of shape (3, 2)"),
        (lambda: jobs.plot(VECTORS[:1]), "at least 2 rows, got 1"),
        (lambda: jobs.plot(VECTORS, method="umap"), "one of pca, tsne, got 'umap'"),
        (lambda: jobs.plot(VECTORS, method="tsne"), "at least 4 texts, got 3"),
    ],
)
def test_a_wrong_argument_is_refused_with_its_value(call, said):
    with pytest.raises(OptionError) as raised:
        call()
    assert said in str(raised.value)


@pytest.mark.parametrize(
    ("module", "job"),
    [
        ("sklearn.cluster", jobs.cluster),
        ("sklearn.manifold", lambda vectors: jobs.plot(vectors, method="tsne")),
        ("matplotlib.figure", lambda vectors: jobs.write_png(jobs.plot(vectors), None)),
    ],
)
def test_a_missing_extra_is_answered_with_the_install_line(module, job, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingPackageError, match=r"pip install 'q3e-local\[analysis\]'"):
        job(rows(6, 8))


def test_more_clusters_than_differ_are_refused_with_their_number():
    noise = np.random.default_rng(0).normal(0, 3e-8, (60, 16)).astype(np.float32)
    vectors = finish(np.repeat(rows(3, 16), 20, axis=0) + noise)
    with pytest.raises(OptionError, match=r"k must be at most \d+: more clusters cannot be told apart, got 30"):
        jobs.cluster(vectors, 30)
    assert len(jobs.cluster(vectors).clusters) == 3


def test_scores_are_never_above_one_and_equal_ones_come_in_order():
    vectors = rows(200, 256)
    assert jobs.similar(vectors).scores.max() <= 1
    assert jobs.match(vectors, vectors, threshold=1).is_match.all()
    assert jobs.filter_pairs(vectors, vectors, 1).kept.all()
    same = jobs.match(vectors[:3], np.repeat(vectors[:1], 300, axis=0), top=4)
    assert same.nearest.tolist() == [[0, 1, 2, 3]] * 3
