"""Ids arithmetic: what is cut, what stays last, and who shares a batch."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from q3e_local.batching import fit, pack

END = 9


@pytest.mark.parametrize(
    ("ids", "limit", "expected"),
    [
        ([], 1, ([END], False)),
        ([], 5, ([END], False)),
        ([1, 2], 3, ([1, 2, END], False)),
        ([1, 2, 3], 3, ([1, 2, END], True)),
        ([1, 2, 3, 4, 5], 3, ([1, 2, END], True)),
        ([1], 1, ([END], True)),
        ([END, END], 3, ([END, END, END], False)),  # an end token in the text is part of the text
    ],
)
def test_fit_cuts_the_text_and_keeps_the_end_token(
    ids: list[int], limit: int, expected: tuple[list[int], bool]
) -> None:
    assert fit(ids, limit, END) == expected


@given(ids=st.lists(st.integers(0, 8), max_size=20), limit=st.integers(1, 25))
def test_fit_gives_at_most_the_limit_exactly_it_when_cut_and_the_end_token_last(ids: list[int], limit: int) -> None:
    before = list(ids)
    fitted, cut = fit(ids, limit, END)
    assert ids == before
    assert fitted[-1] == END
    assert fitted[:-1] == ids[: len(fitted) - 1]
    assert cut == (len(ids) + 1 > limit)
    assert len(fitted) == (limit if cut else len(ids) + 1)


@pytest.mark.parametrize(
    ("lengths", "n_batch", "n_seq_max", "expected"),
    [
        ([], 10, 4, []),
        ([3], 10, 4, [[0]]),
        ([3, 3, 3], 10, 4, [[0, 1, 2]]),
        ([3, 3, 3], 6, 4, [[0, 1], [2]]),
        ([3, 3, 3], 10, 2, [[0, 1], [2]]),
        ([2, 9, 5, 1], 10, 4, [[1, 3], [2, 0]]),  # longest first, short ones fill the gaps
        ([50, 4], 10, 4, [[0], [1]]),  # larger than a batch: alone
        ([10, 10], 10, 4, [[0], [1]]),
    ],
)
def test_pack_fills_batches(lengths: list[int], n_batch: int, n_seq_max: int, expected: list[list[int]]) -> None:
    assert list(pack(lengths, n_batch, n_seq_max)) == expected


@given(lengths=st.lists(st.integers(1, 40), max_size=60), n_batch=st.integers(1, 50), n_seq_max=st.integers(1, 10))
def test_pack_places_every_row_once_within_both_budgets(lengths: list[int], n_batch: int, n_seq_max: int) -> None:
    batches = list(pack(lengths, n_batch, n_seq_max))
    assert sorted(row for batch in batches for row in batch) == list(range(len(lengths)))
    for batch in batches:
        assert 1 <= len(batch) <= n_seq_max
        assert len(batch) == 1 or sum(lengths[row] for row in batch) <= n_batch


@given(lengths=st.lists(st.integers(1, 32), min_size=1, max_size=60))
def test_pack_leaves_at_most_one_batch_less_than_half_full(lengths: list[int]) -> None:
    loads = [sum(lengths[row] for row in batch) for batch in pack(lengths, 32, len(lengths))]
    assert sum(2 * load < 32 for load in loads) <= 1
