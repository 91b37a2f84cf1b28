"""A collection as points on a plane: where each text lies, and which group it has the colour of.

The only file that projects with scikit-learn. Knows vectors and texts; draws but a small picture for notebooks.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from q3e_local.errors import MissingPackageError, OptionError
from q3e_local.jobs.rows import check_texts, unit_rows
from q3e_local.vectors import Vectors
from q3e_local.wording.counts import counted
from q3e_local.wording.html_table import shortened

Method = Literal["pca", "tsne"]
METHODS: tuple[Method, ...] = get_args(Method)

# Told apart by most people who see few colours: Okabe and Ito, https://jfly.uni-koeln.de/color/, without black.
# Behind them darker and lighter ones; the nearest two of all are 21 apart (CIE 1976).
COLOURS = (
    "#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9", "#b3a100", "#7b2d8b", "#8c564b", "#7f7f7f",
    "#111111", "#a6d854", "#e31a1c", "#00ced1", "#f4a6b8", "#1f2f7a", "#556b2f", "#c8a2ff", "#ff00c8", "#9b0f3f",
)  # fmt: skip
_PERPLEXITY = 30  # scikit-learn's own
_IN_A_NOTEBOOK = 2_000  # points
_ALIKE = 1e-5  # between points: what float32 makes of texts that are all the same

Points = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Map:
    """Points (n, 2), the larger of their two spans from 0 to 1, each with its text and a group to colour it by."""

    points: Points
    texts: tuple[str, ...]
    groups: tuple[str, ...]  # of each point; all empty: no groups
    method: Method
    names: tuple[str, ...] = ()  # what else is shown of a text on hover, such as its file and line

    @property
    def group_names(self) -> tuple[str, ...]:
        """The groups by name, numbers in them by value: 2 before 10. None where all points are of one group."""
        names = tuple(sorted(set(self.groups), key=_by_name))
        return names if len(names) > 1 else ()

    @property
    def colours(self) -> dict[str, str]:
        """The colour of each group's points. Above 20 groups share them."""
        names = self.group_names or tuple(set(self.groups))
        return {name: COLOURS[place % len(COLOURS)] for place, name in enumerate(names)}

    def __repr__(self) -> str:
        groups = f" in {counted(len(self.group_names), 'group')}" if self.group_names else ""
        return f"<Map: {counted(len(self.points), 'point')}{groups}, by {self.method}>"

    def _repr_html_(self) -> str:
        colours = self.colours
        dots = "".join(
            f'<circle cx="{20 + 560 * x:.1f}" cy="{580 - 560 * y:.1f}" r="4" fill="{colours[group]}" '
            f'fill-opacity="0.8"><title>{escape(shortened(text))}</title></circle>'
            for (x, y), text, group in zip(
                self.points[:_IN_A_NOTEBOOK].tolist(), self.texts, self.groups, strict=False
            )
        )
        n_more = len(self.points) - _IN_A_NOTEBOOK
        more = f"<p>and {n_more:,} more points</p>" if n_more > 0 else ""
        legend = " ".join(f'<span style="color:{colours[name]}">●</span> {escape(name)}' for name in self.group_names)
        return f'<div>{legend}</div><svg width="600" height="600" viewBox="0 0 600 600">{dots}</svg>{more}'


def plot(
    vectors: Vectors,
    texts: Sequence[str] = (),
    groups: Sequence[str] = (),
    method: Method = "pca",
    names: Sequence[str] = (),
) -> Map:
    """Lay texts out on a plane so that near ones are near. The same vectors, the same map.

    `pca` keeps the two directions in which the texts differ most, by NumPy; `tsne` keeps neighbours together, by
    scikit-learn, and says little of what is far apart.
    """
    unit_rows(vectors, n_min=2)
    for what, given in (("texts", texts), ("groups", groups), ("names", names)):
        check_texts(given or None, len(vectors), what)
    check_method(method, len(vectors))
    points = _tsne(vectors) if method == "tsne" else principal(vectors, 2)
    points = points - points.min(axis=0)
    span = points.max()
    points = points / span if span > _ALIKE else np.full_like(points, 0.5)
    shown = tuple(texts) or tuple(str(row) for row in range(len(vectors)))
    return Map(points, shown, tuple(groups) or ("",) * len(vectors), method, tuple(names))


def check_method(method: str, n_texts: int) -> None:
    """Raise OptionError for what is no method, or none for so few texts."""
    if method not in METHODS:
        raise OptionError(f"method must be one of {', '.join(METHODS)}, got {method!r}", "method")
    if method == "tsne" and n_texts < 4:
        raise OptionError(f"method tsne needs at least 4 texts, got {n_texts}; pca does with 2", "method")


def principal(vectors: Vectors, n: int) -> Points:
    """The first `n` principal components of the rows (n_rows, n), each so that its largest weight is positive."""
    mean = vectors.mean(axis=0, dtype=np.float64)
    n_rows, dim = vectors.shape
    # The smaller of the two products of the centred rows; both have the same largest eigenvalues.
    centred = vectors - mean.astype(np.float32)
    if n_rows < dim:
        values, of_rows = np.linalg.eigh((centred @ centred.T).astype(np.float64))
        values, of_rows = values[::-1][:n], of_rows[:, ::-1][:, :n]
        # Of two texts there is one direction; what is left in a second is float32's.
        lengths = np.sqrt(np.where(values > 1e-6 * values[0], values, np.inf))
        weights = centred.T @ (of_rows / lengths)
    else:
        _, weights = np.linalg.eigh((centred.T @ centred).astype(np.float64))
        weights = weights[:, ::-1][:, :n]
    signs = np.sign(weights[np.argmax(np.abs(weights), axis=0), np.arange(weights.shape[1])])
    found: Points = (centred @ (weights * np.where(signs == 0, 1, signs))).astype(np.float64)
    if found.shape[1] < n:  # fewer rows than components
        found = np.pad(found, ((0, 0), (0, n - found.shape[1])))
    return found


def _by_name(name: str) -> tuple[list[str | tuple[int, str]], str]:
    """A key that sorts names as people do: runs of digits count as numbers, case does not matter."""
    parts: list[str | tuple[int, str]] = list(re.split(r"([0-9]+)", name.casefold()))
    # Of two numbers without leading zeros the longer one is larger.
    parts[1::2] = [(len(digits), digits) for digits in (str(part).lstrip("0") for part in parts[1::2])]
    return parts, name


def _tsne(vectors: Vectors) -> Points:
    try:
        from sklearn.manifold import TSNE
        from threadpoolctl import threadpool_limits
    except ImportError:
        raise MissingPackageError("t-SNE", "scikit-learn", "analysis") from None
    begin = principal(vectors, 2)
    spread = begin[:, 0].std()
    if spread < _ALIKE:
        return begin
    perplexity = min(_PERPLEXITY, (len(vectors) - 1) / 3)
    # scikit-learn's own PCA start is not the same on every machine; ours is, and scaled as it says.
    start = (begin / spread * 1e-4).astype(np.float32)
    with threadpool_limits(1, "openmp"):  # several threads add in another order each time, and the map is another
        found: Points = TSNE(2, perplexity=perplexity, init=start, random_state=0).fit_transform(vectors)
    return found.astype(np.float64)
