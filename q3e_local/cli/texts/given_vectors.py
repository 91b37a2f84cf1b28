"""Vectors that somebody has already: a `.npy`, and the lines about its rows that `embed` puts beside it.

Knows NumPy's format and those lines; whatever cannot be a collection of vectors is refused with its row.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import orjson
from numpy.typing import NDArray

from q3e_local.errors import InputError, OptionError
from q3e_local.files import rows_file
from q3e_local.space import at_dim, is_space
from q3e_local.vectors import Vectors, finish
from q3e_local.wording.counts import counted

_BLOCK = 8192  # rows scaled at a time
_NEARLY_ONE = 1e-2


@dataclass(frozen=True)
class RowFacts:
    """What is known of the rows of a `.npy`; empty where nothing is. `digests` are of their texts.

    `indices` are the places their texts had in the input, `blank` the rows of zeros that stand for blank texts.
    """

    ids: tuple[str, ...] = ()
    digests: tuple[str, ...] = ()
    indices: tuple[int, ...] = ()
    space: str | None = None
    blank: frozenset[int] = frozenset()

    def name(self, row: int) -> str:
        """The id of a row's text, or the row's number."""
        return self.ids[row] if self.ids else f"row {row}"


def read_npy(path: Path, dim: int | None, quiet: bool) -> tuple[Vectors, RowFacts]:
    """The vectors, float32 (n, dim) with rows of length 1, cut to `dim`; and what is known of them, all with an id.

    Rows of zeros that `embed` wrote for blank texts are left out. Raises InputError naming what is wrong, OptionError
    for such a `dim`.
    """
    raw = open_npy(path)
    n_rows, width = raw.shape
    if dim is not None and not 1 <= dim <= width:
        raise OptionError(f"--dimensions must be between 1 and {width} for {path}, got {dim}")
    facts = row_facts(path, n_rows)
    rows = np.array([row for row in range(n_rows) if row not in facts.blank], np.intp)
    if not rows.size:
        raise InputError(f"{path} has no vectors: all its rows are of blank texts")
    vectors = np.empty((len(rows), dim or width), np.float32)
    shortest, longest = np.inf, 0.0
    for start in range(0, len(rows), _BLOCK):
        numbers = rows[start : start + _BLOCK]
        block = raw[numbers].astype(np.float32)
        lengths = np.linalg.norm(block.astype(np.float64), axis=1)
        shortest, longest = min(shortest, float(lengths.min())), max(longest, float(lengths.max()))
        vectors[start : start + _BLOCK] = scaled(path, block, numbers, dim)
    if raw.dtype.kind == "f" and max(longest - 1, 1 - shortest) > _NEARLY_ONE and not quiet:
        click.echo(
            f"rows of {path} have lengths from {shortest:.3g} to {longest:.3g}; they are scaled to 1", err=True
        )
    if facts.blank and not quiet:
        click.echo(f"{path} has zeros for {counted(len(facts.blank), 'blank text')}, left out here", err=True)
    digests = tuple(facts.digests[row] for row in rows) if facts.digests else ()
    space = facts.space if facts.space is None or dim is None else at_dim(facts.space, dim)
    return vectors, RowFacts(tuple(map(facts.name, rows)), digests, space=space)


def open_npy(path: Path) -> NDArray[Any]:
    """The array as it lies on the disk, (n, dim), at least one row. Raises InputError."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise InputError(f"there is no file {path}") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from None
    except (ValueError, EOFError) as error:
        raise InputError(f"{path} is no NumPy array of numbers: {error}") from None
    if not isinstance(array, np.ndarray) or array.ndim != 2:
        raise InputError(f"{path} must be an array of shape (n, dim), got {getattr(array, 'shape', 'an archive')}")
    if array.dtype.kind != "f" and array.dtype != np.int8:
        what = "packed bits" if array.dtype == np.uint8 else "no embeddings"
        raise InputError(f"{path} holds {array.dtype}, {what}; float32, float16 or int8 is needed")
    if 0 in array.shape:
        raise InputError(f"{path} has no vectors: its shape is {array.shape}")
    return array


def scaled(path: Path, rows: Vectors, numbers: NDArray[np.intp], dim: int | None) -> Vectors:
    """Rows of these numbers, cut and scaled to length 1. Raises InputError for one without direction."""
    bad = np.flatnonzero(~np.isfinite(rows).all(axis=1))
    if bad.size:
        raise InputError(f"row {numbers[bad[0]]} of {path} has NaN or infinity in it")
    zero = np.flatnonzero(~rows[:, :dim].any(axis=1))
    if zero.size:
        raise InputError(f"row {numbers[zero[0]]} of {path} is all zeros, which has no direction")
    return finish(rows, dim)


def row_facts(path: Path, n_rows: int) -> RowFacts:
    """What NAME.npy.rows.jsonl says of each row; empty without that file. Raises InputError for wrong lines."""
    described = rows_file(path)
    if not described.is_file():
        return RowFacts()
    try:
        lines = [orjson.loads(line) for line in described.read_bytes().splitlines()]
        ids = tuple(str(line["id"]) for line in lines)
        digests = tuple(str(line["text_sha256"]) for line in lines)
        indices = tuple(int(line["index"]) for line in lines)
        blank = frozenset(row for row, line in enumerate(lines) if line.get("blank"))
        spaces = {str(line["space"]) for line in lines}
    except (OSError, orjson.JSONDecodeError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{described} does not describe the rows of {path}: {error!r}") from None
    if len(ids) != n_rows:
        raise InputError(f"{path} has {n_rows:,} rows, {described} describes {len(ids):,}; embed the inputs anew")
    strange = next((space for space in spaces if not is_space(space)), None)
    if strange is not None:
        raise InputError(f"{described} names the space {strange!r}, which is none; embed the inputs anew")
    if len(spaces) != 1:
        raise InputError(f"{described} names more than one space: {', '.join(sorted(spaces))}")
    return RowFacts(ids, digests, indices, spaces.pop(), blank)
