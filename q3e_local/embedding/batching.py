"""Fit token ids to a limit and pack them into batches.

Knows nothing of text, vectors or llama.cpp: ids and lengths in, ids and row numbers out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

# Computing a shorter prefix again costs less than keeping it.
N_PREFIX_MIN = 8
# Rows of queries that llama.cpp's flash attention for CPUs computes as a tile, with sums in f32 (GGML_FA_TILE_Q).
N_TILE = 64
# The most tokens that cannot be split into two pieces of N_TILE tokens or more.
N_UNSPLIT = 2 * N_TILE - 1


def fit(ids: list[int], limit: int, eos_id: int) -> tuple[list[int], bool]:
    """Cut `ids` so that, with the end token added, they number at most `limit`.

    Returns the ids with the end token last, and whether anything was cut. `limit` must be at least 1.
    """
    if len(ids) < limit:
        return [*ids, eos_id], False
    # The end token carries the embedding, so cut the words and keep it.
    return [*ids[: limit - 1], eos_id], True


def prefixes(sequences: Sequence[Sequence[int]], known: Sequence[int] | None = None) -> list[int]:
    """For each sequence, how many of its first ids are worth computing once for several sequences.

    `known` are the lengths of beginnings that later calls bring again, such as an instruction's. Sequences that begin
    alike form groups that save as much as possible; a beginning below N_PREFIX_MIN is no gain. A prefix never has
    the last id of its sequence.
    """
    n_prefix = [0] * len(sequences) if known is None else list(known)
    # subtle: sorted() does not let another thread run, and compares bytes 50 times as fast as ids. Big-endian bytes
    # are in the order of the ids.
    order = sorted(range(len(sequences)), key=lambda row: np.asarray(sequences[row], ">u4").tobytes())
    group, n_common = order[:1], 0
    for row in order[1:]:
        n_alike = common(sequences[group[-1]], sequences[row])
        # A row that joins may shorten what the group has in common; the group must still save more than before.
        n_joined = min(n_common, n_alike) if len(group) > 1 else n_alike
        if n_joined >= N_PREFIX_MIN and n_joined * len(group) > n_common * (len(group) - 1):
            group.append(row)
            n_common = n_joined
        else:
            _share(n_prefix, group, n_common)
            group, n_common = [row], 0
    _share(n_prefix, group, n_common)
    return n_prefix


def common(ids: Sequence[int], others: Sequence[int]) -> int:
    """How many first ids two sequences have in common, the last of each left out."""
    n_max = min(len(ids), len(others)) - 1
    return next((place for place in range(n_max) if ids[place] != others[place]), max(n_max, 0))


def first_place(n_there: int, n_ids: int) -> int:
    """The first place of a sequence to compute, where `n_there` of its ids are computed already.

    At least the last N_TILE ids are computed again: a piece of few tokens after many is slow, and llama.cpp adds its
    numbers up in f16.
    """
    return max(0, min(n_there, n_ids - N_TILE))


def end_of_piece(start: int, n_ids: int, n_max: int) -> int:
    """Where the piece ends that begins at `start` and has at most `n_max` tokens, which are N_TILE or more.

    The pieces of a sequence are about equally long. All pieces but the last are made of whole tiles, because flash
    attention computes an incomplete tile at the price of a whole tile. No piece has fewer than N_TILE tokens, unless
    the sequence has, so up to N_UNSPLIT tokens at the end are a single piece whatever `n_max` is.
    """
    n_left = n_ids - start
    n_pieces = -(-n_left // n_max)
    if n_pieces == 1 or n_left <= N_UNSPLIT:
        return n_ids
    n_tiles = -(-n_left // (n_pieces * N_TILE))
    return start + N_TILE * min(n_tiles, n_max // N_TILE, n_left // N_TILE - 1)


def _share(n_prefix: list[int], group: list[int], n_common: int) -> None:
    """Write a group's common length over the prefixes of its rows that are shorter by N_PREFIX_MIN or more."""
    if len(group) > 1:
        for row in group:
            if n_common >= n_prefix[row] + N_PREFIX_MIN:
                n_prefix[row] = n_common


class Load:
    """What a batch holds so far: `n_cells` of the key-value cache; a prefix that sequences share counts once."""

    def __init__(self) -> None:
        self.n_cells = 0
        self.n_sequences = 0
        self._prefixes: set[tuple[int, ...]] = set()

    def cost(self, n_ids: int, prefix: tuple[int, ...]) -> int:
        """The cells that a further sequence of this many ids takes, if it begins with `prefix`."""
        return n_ids - len(prefix) if prefix in self._prefixes else n_ids

    def add(self, n_ids: int, prefix: tuple[int, ...]) -> None:
        self.n_cells += self.cost(n_ids, prefix)
        self.n_sequences += 1
        if prefix:
            self._prefixes.add(prefix)


def pack(
    sequences: Sequence[Sequence[int]], n_prefix: Sequence[int], n_batch: int, n_seq_max: int
) -> Iterator[tuple[list[int], int]]:
    """Group rows into batches of at most `n_batch` cells and `n_seq_max` sequences.

    Yields lists of row numbers and their cells; every row appears exactly once. Rows are placed longest first, each
    where it costs least, so that batches are full and sequences with the same prefix come together. A row longer than
    `n_batch` is a batch alone. Long rows that begin alike follow each other: the engine computes them in pieces, and
    the next row only from where it differs.
    """
    heads = [tuple(ids[:n]) for ids, n in zip(sequences, n_prefix, strict=True)]
    rows = range(len(sequences))
    for row in sorted((row for row in rows if len(sequences[row]) > n_batch), key=lambda row: tuple(sequences[row])):
        yield [row], len(sequences[row])
    batches: list[tuple[list[int], Load]] = []
    short = (row for row in rows if len(sequences[row]) <= n_batch)
    for row in sorted(short, key=lambda row: n_prefix[row] - len(sequences[row])):
        n_ids, head = len(sequences[row]), heads[row]
        fitting = [
            batch
            for batch in batches
            if batch[1].n_sequences < n_seq_max and batch[1].n_cells + batch[1].cost(n_ids, head) <= n_batch
        ]
        if fitting:
            places, load = min(fitting, key=lambda batch: batch[1].cost(n_ids, head))
        else:
            places, load = [], Load()
            batches.append((places, load))
        places.append(row)
        load.add(n_ids, head)
    for places, load in batches:
        yield places, load.n_cells
