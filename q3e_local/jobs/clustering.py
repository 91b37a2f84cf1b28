"""Texts in groups of one theme each: spherical k-means, and how many groups there are.

The only file that clusters with scikit-learn. Knows vectors, nothing of texts.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from q3e_local.errors import MissingPackageError, OptionError
from q3e_local.jobs.mapping import principal
from q3e_local.jobs.rows import OnDone, check_texts, most_central, name_of, unit_rows
from q3e_local.vectors import Vectors, finish, scores
from q3e_local.wording.counts import counted
from q3e_local.wording.html_table import html_table

# Numbers of clusters that are tried: few enough to look through, closer together where one more matters.
_TRIED = (*range(2, 11), 12, 15, 20, 25, 30, 40)
_SAMPLE = 2_000  # rows that are tried on: the score of each with each fits 16 MB
_SLOW, _DIRECTIONS = 500, 64  # rows from which on these are tried on so many principal components
_MANY = 5_000  # rows above which k-means starts once: many rows start well
_ROUNDS_MAX = 20
_FEW = 10  # clusters are looked for among few texts too

Labels = NDArray[np.intp]


@dataclass(frozen=True)
class Cluster:
    """Texts of one theme. `rows` are row numbers, nearest to the centre first, `scores` theirs with the centre."""

    rows: tuple[int, ...]
    scores: tuple[float, ...]

    def __repr__(self) -> str:
        nearest = ", ".join(map(str, self.rows[:3])) + ", …" * (len(self.rows) > 3)
        return f"<Cluster: {counted(len(self.rows), 'text')}, rows {nearest}>"


@dataclass(frozen=True, eq=False)
class Clusters:
    """The clusters, largest first, and for each row (n,) the number of its cluster.

    `tried` are numbers of clusters with their silhouette (-1 to 1, how much nearer texts are to their own cluster
    than to the next), where the number was chosen so.
    """

    clusters: tuple[Cluster, ...]
    labels: Labels
    tried: tuple[tuple[int, float], ...] = ()
    texts: tuple[str, ...] = ()

    @property
    def silhouette(self) -> float | None:
        """That of the number chosen; None where it was given."""
        return max((score for _, score in self.tried), default=None)

    def __repr__(self) -> str:
        chosen = "" if self.silhouette is None else f", silhouette {self.silhouette:.3f}"
        n_clusters, n_texts = counted(len(self.clusters), "cluster"), counted(len(self.labels), "text")
        return f"<Clusters: {n_clusters} of {n_texts}{chosen}>"

    def _repr_html_(self) -> str:
        rows = (
            (
                number, len(group.rows), float(np.mean(group.scores)),
                " · ".join(name_of(row, self.texts, 60) for row in group.rows[:3]),
            )
            for number, group in enumerate(self.clusters, 1)
        )  # fmt: skip
        return html_table(["cluster", "texts", "mean score", "most central"], rows)


def cluster(
    vectors: Vectors, k: int | None = None, texts: Sequence[str] | None = None, progress: OnDone | None = None
) -> Clusters:
    """Part texts into `k` clusters, or into as many as have the highest silhouette. The same input, the same answer.

    The silhouette and not HDBSCAN: in a thousand dims a density is hard to tell, most texts would be noise, and there
    would still be a number to choose. Needs scikit-learn.
    """
    unit_rows(vectors)
    check_texts(texts, len(vectors))
    check_clusters(k, len(vectors))
    n_distinct = len({hash(row.tobytes()) for row in vectors})
    if k is not None and k > n_distinct:
        raise OptionError(f"k must be at most the number of different texts, {n_distinct}, got {k}", "k")
    learn, is_given = _scikit_learn(), k is not None
    tried: tuple[tuple[int, float], ...] = ()
    if k is None:
        tried = _silhouettes(learn, vectors, n_distinct, progress)
        k = max(tried, key=lambda pair: pair[1])[0] if tried else 1
    numbers, labels = np.unique(_k_means(learn, vectors, k), return_inverse=True)
    if is_given and len(numbers) < k:
        raise OptionError(f"k must be at most {len(numbers)}: more clusters cannot be told apart, got {k}", "k")
    k = len(numbers)
    labels = _settled(vectors, labels, k)
    clusters = [_cluster(vectors, labels, label) for label in range(k)]
    clusters.sort(key=lambda group: (-len(group.rows), min(group.rows)))
    for label, group in enumerate(clusters):
        labels[list(group.rows)] = label
    return Clusters(tuple(clusters), labels, tried, tuple(texts or ()))


def check_clusters(k: int | None, n_texts: int) -> None:
    """Raise OptionError for a number of clusters that so many texts cannot have."""
    if k is not None and not 1 <= k <= n_texts:
        raise OptionError(f"k must be between 1 and the number of texts, {n_texts}, got {k}", "k")


def _scikit_learn() -> Any:
    try:
        import sklearn.cluster
        import sklearn.exceptions
        import sklearn.metrics
    except ImportError:
        raise MissingPackageError("clustering", "scikit-learn", "analysis") from None
    return sklearn


def _silhouettes(
    learn: Any, vectors: Vectors, n_distinct: int, progress: OnDone | None
) -> tuple[tuple[int, float], ...]:
    """The mean silhouette for each number of clusters that can be tried, on a sample; none of two texts or fewer."""
    sample = vectors
    if len(vectors) > _SAMPLE:
        sample = vectors[np.sort(np.random.default_rng(0).choice(len(vectors), _SAMPLE, replace=False))]
    # Above the root of their number clusters are of a few texts each, and the silhouette is fond of those.
    n_likely = max(math.isqrt(len(vectors)), min(_FEW, len(vectors) // 2), 2)
    n_most = min(n_distinct, len(sample) - 1, n_likely)
    distances = np.maximum(1 - scores(sample, sample), 0)
    np.fill_diagonal(distances, 0)
    # Which number it is shows in the directions that texts differ most in, in a tenth of the time.
    placed = sample if len(sample) < _SLOW else principal(sample, _DIRECTIONS).astype(np.float32)
    found = []
    to_try = [k for k in _TRIED if k <= n_most]
    for n_done, k in enumerate(to_try):
        if progress is not None:
            progress(n_done, len(to_try))
        labels = _k_means(learn, placed, k)
        if len(np.unique(labels)) == k:
            found.append((k, float(learn.metrics.silhouette_score(distances, labels, metric="precomputed"))))
    return tuple(found)


def _k_means(learn: Any, vectors: Vectors, k: int) -> Labels:
    n_starts = 4 if len(vectors) <= _MANY else 1
    from threadpoolctl import threadpool_limits

    # scikit-learn warns of fewer clusters than k, which `cluster` checks.
    with warnings.catch_warnings(), threadpool_limits(1, "openmp"):  # several threads add in another order each time
        warnings.simplefilter("ignore", learn.exceptions.ConvergenceWarning)
        labels: Labels = learn.cluster.KMeans(k, n_init=n_starts, random_state=0).fit_predict(vectors)
    return labels.astype(np.intp)


def _settled(vectors: Vectors, labels: Labels, k: int) -> Labels:
    """The labels once every text is in the cluster whose centre has the highest score with it.

    scikit-learn's centres are means, shorter the wider a cluster is; on the sphere a centre has length 1.
    """
    for _ in range(_ROUNDS_MAX):
        centres = finish(np.stack([vectors[labels == label].sum(axis=0) for label in range(k)]))
        nearer = np.argmax(scores(vectors, centres), axis=1)
        if np.array_equal(nearer, labels) or len(np.unique(nearer)) < k:
            break
        labels = nearer
    return labels


def _cluster(vectors: Vectors, labels: Labels, label: int) -> Cluster:
    rows = np.flatnonzero(labels == label)
    order, found = most_central(vectors[rows])
    return Cluster(tuple(rows[order].tolist()), tuple(found[order].tolist()))
