"""Fit token ids to a limit and pack them into batches.

Knows nothing of text, vectors or llama.cpp: ids and lengths in, ids and row numbers out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence


def fit(ids: list[int], limit: int, eos_id: int) -> tuple[list[int], bool]:
    """Cut `ids` so that, with the end token added, they number at most `limit`.

    Returns the ids with the end token last, and whether anything was cut. `limit` must be at least 1.
    """
    if len(ids) < limit:
        return [*ids, eos_id], False
    # The end token carries the embedding, so cut the words and keep it.
    return [*ids[: limit - 1], eos_id], True


def pack(lengths: Sequence[int], n_batch: int, n_seq_max: int) -> Iterator[list[int]]:
    """Group rows into batches of at most `n_batch` tokens and `n_seq_max` sequences.

    Yields lists of row numbers; every row appears exactly once. Longest first, each into the first batch that
    still has room, so that batches are full. A row longer than `n_batch` is a batch of its own: the engine
    takes it in pieces.
    """
    batches: list[list[int]] = []
    room: list[int] = []
    for row in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
        for number, batch in enumerate(batches):
            if lengths[row] <= room[number] and len(batch) < n_seq_max:
                batch.append(row)
                room[number] -= lengths[row]
                break
        else:
            batches.append([row])
            room.append(n_batch - lengths[row])
    yield from batches
