"""How well vectors tell classes apart, as MTEB measures it: a classifier's accuracy, and the V-measure of clusters.

The parameters are those of mteb 2's AbsTaskClassification and AbsTaskClustering. The only file here that imports
scikit-learn. Knows vectors and labels; nothing of models.
"""

from __future__ import annotations

import random
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from q3e_local.errors import InputError, MissingPackageError
from q3e_local.evaluation.data import LabelledTexts
from q3e_local.vectors import Vectors

Values = NDArray[np.float64]
Rows = NDArray[np.intp]

_SEED = 42  # MTEB's
_EXPERIMENTS = 10
_PER_LABEL = 8  # texts that a classifier learns of each class
_ITERATIONS_MAX = 100
_SAMPLES = 100  # MTEB draws 10: an interval of 95 % takes more
_SAMPLE_TEXTS = 2_048
_BATCH = 512

OnDone = Callable[[int, int], None]


def halves(data: LabelledTexts) -> tuple[Rows, Rows]:
    """The rows to learn from and the rows to be judged by.

    Where the file does not say which are which, every other text of a class is learned from. Raises InputError for a
    class that is in one part alone.
    """
    splits = [text.split for text in data.texts]
    if None in splits and any(splits):
        text = data.texts[splits.index(None)]
        raise InputError(f"{text.place} has no 'split', which other texts have; give each one, or none")
    if None in splits:
        seen: Counter[str] = Counter()
        for row, text in enumerate(data.texts):
            splits[row] = ("train", "test")[seen[text.label] % 2]
            seen[text.label] += 1
    parts = [np.flatnonzero([split == wanted for split in splits]) for wanted in ("train", "test")]
    known, asked = ({data.texts[row].label for row in part} for part in parts)
    if known != asked:
        label = min(known ^ asked)
        raise InputError(f"the label {label!r} has texts to train on or texts to test, and needs both")
    return parts[0], parts[1]


def classified(vectors: Vectors, labels: Sequence[str], parts: tuple[Rows, Rows], on_done: OnDone) -> Values:
    """How often a classifier is right about each row of the second part, 0 to 1 (n_test,).

    The mean of these shares is the accuracy. Ten logistic regressions learn from eight texts of each class, which are
    drawn anew for each.
    """
    learn = scikit_learn()
    train, test = parts
    wanted = np.array(labels)
    right = np.zeros(len(test))
    for number, chosen in enumerate(_drawn(train, wanted)):
        on_done(number, _EXPERIMENTS)
        classifier = learn.linear_model.LogisticRegression(random_state=_SEED, max_iter=_ITERATIONS_MAX)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", learn.exceptions.ConvergenceWarning)  # MTEB takes what it has then
            classifier.fit(vectors[chosen], wanted[chosen])
        right += classifier.predict(vectors[test]) == wanted[test]
    on_done(_EXPERIMENTS, _EXPERIMENTS)
    return right / _EXPERIMENTS


def clustered(vectors: Vectors, labels: Sequence[str], on_done: OnDone) -> Values:
    """The V-measure, 0 to 1, of each of 100 bootstrap samples of the texts (100,).

    The mean of these is the measure. Each sample is parted by mini-batch k-means into as many clusters as there are
    classes. The samples are the same for every column.
    """
    learn = scikit_learn()
    from threadpoolctl import threadpool_limits

    draw = random.Random(_SEED)  # noqa: S311 - nothing is kept secret by it
    wanted = np.array(labels)
    n_clusters, n_texts = len(set(labels)), len(labels)
    found = []
    for number in range(_SAMPLES):
        on_done(number, _SAMPLES)
        sample = np.array(draw.choices(range(n_texts), k=min(n_texts, _SAMPLE_TEXTS)))
        clusters = learn.cluster.MiniBatchKMeans(
            n_clusters=n_clusters, batch_size=_BATCH, init="k-means++", n_init=1, random_state=_SEED
        )
        # Several threads add in another order each time. scikit-learn warns of a sample with fewer different texts
        # than clusters, whose measure is right all the same.
        with warnings.catch_warnings(), threadpool_limits(1, "openmp"):
            warnings.simplefilter("ignore", learn.exceptions.ConvergenceWarning)
            assigned = clusters.fit_predict(vectors[sample])
        found.append(float(learn.metrics.v_measure_score(wanted[sample], assigned)))
    on_done(_SAMPLES, _SAMPLES)
    return np.array(found)


def _drawn(train: Rows, labels: NDArray[np.str_]) -> Iterator[Rows]:
    """The rows that each classifier learns from: up to eight of each class, drawn anew each time."""
    shuffle = np.random.RandomState(_SEED)
    rows = train.copy()
    for _ in range(_EXPERIMENTS):
        shuffle.shuffle(rows)
        taken: Counter[str] = Counter()
        chosen = []
        for row in rows:
            if taken[labels[row]] < _PER_LABEL:
                taken[labels[row]] += 1
                chosen.append(row)
        yield np.array(chosen)


def scikit_learn() -> Any:
    """The library. Raises MissingPackageError."""
    try:
        import sklearn.cluster
        import sklearn.exceptions
        import sklearn.linear_model
        import sklearn.metrics
    except ImportError:
        raise MissingPackageError("measuring classes", "scikit-learn", "eval") from None
    return sklearn
