"""Arithmetic on ids: what is cut, which id stays last, and which sequences share a batch."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from q3e_local.embedding.batching import N_TILE, N_UNSPLIT, end_of_piece, first_place, fit, pack, prefixes

END = 9


@given(ids=st.lists(st.integers(0, END), max_size=20), limit=st.integers(1, 25))  # the text may have END too
def test_fit_cuts_the_text_and_keeps_the_end_token(ids, limit):
    before = list(ids)
    assert fit(ids, limit, END) == ([*before[: limit - 1], END], len(before) >= limit)
    assert ids == before


@given(
    lengths=st.lists(st.tuples(st.integers(1, 40), st.integers(0, 40), st.sampled_from("ab")), max_size=60),
    n_batch=st.integers(1, 50),
    n_seq_max=st.integers(1, 10),
)
def test_pack_places_every_row_once_within_both_budgets(lengths, n_batch, n_seq_max):
    sequences = [[ord(head)] * n + [place] for place, (n, _, head) in enumerate(lengths)]
    n_prefix = [min(n_shared, n) for n, n_shared, _ in lengths]
    batches = list(pack(sequences, n_prefix, n_batch, n_seq_max))
    assert sorted(row for rows, _ in batches for row in rows) == list(range(len(lengths)))
    for rows, n_cells in batches:
        assert 1 <= len(rows) <= n_seq_max
        heads = {tuple(sequences[row][: n_prefix[row]]) for row in rows}
        tails = sum(len(sequences[row]) - n_prefix[row] for row in rows)
        assert n_cells == sum(map(len, heads)) + tails
        assert len(rows) == 1 or n_cells <= n_batch


@given(lengths=st.lists(st.integers(1, 32), min_size=1, max_size=60))
def test_pack_leaves_at_most_one_batch_less_than_half_full(lengths):
    loads = [n_cells for _, n_cells in pack(apart(lengths), [0] * len(lengths), 32, len(lengths))]
    assert sum(2 * load < 32 for load in loads) <= 1


def test_pack_counts_a_shared_prefix_once_so_that_more_texts_come_together():
    sequences = [[*range(21), 100 + place, END] for place in range(64)]
    without = list(pack(sequences, [0] * 64, 512, 64))
    sharing = list(pack(sequences, [21] * 64, 512, 64))
    assert [len(rows) for rows, _ in without] == [22, 22, 20]
    assert [(len(rows), n_cells) for rows, n_cells in sharing] == [(64, 21 + 2 * 64)]


def test_pack_lets_long_texts_that_begin_alike_follow_each_other():
    a, b = [1] * 12, [2] * 12
    sequences = [[*a, 1], [*b, 1], [*a, 2], [*b, 2, 2]]
    assert [rows for rows, _ in pack(sequences, [12] * 4, 10, 4)] == [[0], [2], [1], [3]]


def apart(lengths: list[int]) -> list[list[int]]:
    """Sequences of these lengths that have nothing in common."""
    return [[place] * n for place, n in enumerate(lengths)]


@pytest.mark.parametrize(
    ("sequences", "known", "expected"),
    [
        ([], None, []),
        ([[*range(9), END]], None, [0]),  # no other sequence
        ([[*range(9), END]], [8], [8]),  # but later sequences will begin with it
        ([[*range(7), 50], [*range(7), 60]], None, [0, 0]),  # below the least that is a gain
        ([[*range(8), 50], [*range(8), 60]], None, [8, 8]),
        ([[*range(9)], [*range(9)], [*range(9), 1]], None, [8, 8, 8]),  # the last id is never shared
        # A long beginning of few sequences saves less than a shorter beginning of many.
        ([[*range(20), 1, 1, place, END] for place in (1, 2)] + [[*range(20), 9, END]] * 2, None, [20] * 4),
        # Two groups whose beginnings have nothing in common.
        ([[*range(30), place, END] for place in (7, 8)] + [[*range(50, 70), END], [*range(50, 80)]], None,
         [30, 30, 20, 20]),
        # A known beginning stays, unless the sequences begin alike for much longer.
        ([[*range(14), 50, END], [*range(14), 60, END]], [8, 8], [8, 8]),
        ([[*range(18), 50, END], [*range(18), 60, END]], [8, 8], [18, 18]),
    ],
)  # fmt: skip
def test_prefixes_finds_beginnings_worth_computing_once(sequences, known, expected):
    assert prefixes(sequences, known) == expected


@given(sequences=st.lists(st.lists(st.integers(0, 1), min_size=1, max_size=30), max_size=20))
def test_a_prefix_is_shared_with_another_sequence_and_leaves_the_last_id(sequences):
    for row, n in enumerate(prefixes(sequences)):
        assert 0 <= n < len(sequences[row])
        if n:
            assert any(
                other != row and ids[:n] == sequences[row][:n] and len(ids) > n for other, ids in enumerate(sequences)
            )


def pieces_of(n_there: int, n_ids: int, n_max: int) -> list[int]:
    """How many tokens the pieces of a sequence have."""
    at, lengths = first_place(n_there, n_ids), []
    while at < n_ids:
        end = end_of_piece(at, n_ids, n_max)
        lengths.append(end - at)
        at = end
    return lengths


@pytest.mark.parametrize(
    ("n_there", "n_ids", "n_max", "expected"),
    [
        (0, 1, 512, [1]),
        (0, 512, 512, [512]),
        (0, 513, 512, [320, 193]),  # not 512 and 1
        (0, 1500, 512, [512, 512, 476]),
        (100, 1500, 512, [512, 448, 440]),
        (1499, 1500, 512, [64]),  # 63 of them once more
        (40, 50, 512, [50]),
        (0, 150, 128, [64, 86]),  # not 128 and 22
        (0, 190, 64, [64, 126]),
        (0, 300, 100, [64, 64, 64, 108]),
    ],
)
def test_a_long_text_is_cut_into_even_pieces_none_of_them_tiny(n_there, n_ids, n_max, expected):
    assert pieces_of(n_there, n_ids, n_max) == expected


@given(n_there=st.integers(0, 3000), n_ids=st.integers(N_TILE, 3000), n_max=st.integers(N_TILE, 700))
def test_every_piece_has_a_tile_and_no_tile_is_computed_for_nothing(n_there, n_ids, n_max):
    *others, last = pieces_of(n_there, n_ids, n_max)
    assert N_TILE <= last <= max(n_max, N_UNSPLIT)
    for n in others:
        assert n % N_TILE == 0
        assert N_TILE <= n <= n_max
