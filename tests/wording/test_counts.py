"""Numbers as people write them."""

from __future__ import annotations

import pytest

from q3e_local.wording.counts import counted, counted_of, duration, size, size_of


@pytest.mark.parametrize(
    ("n", "words", "said"),
    [
        (0, ("text",), "0 texts"),
        (1, ("text",), "1 text"),
        (2_000, ("text",), "2,000 texts"),
        (1, ("text was", "texts were"), "1 text was"),
        (3, ("text was", "texts were"), "3 texts were"),
    ],
)
def test_a_count_has_its_noun(n, words, said):
    assert counted(n, *words) == said


def test_totals_sizes_and_times():
    assert (counted_of(0, 1, "file"), counted_of(5, None, "file")) == ("0 of 1 file", "5 files")
    assert (size(2_497_000_000), size_of(5e8, 25e8)) == ("2.50 GB", "0.50 of 2.50 GB")
    assert [duration(seconds) for seconds in (0, 9.4, 65, 3723)] == ["0:00", "0:09", "1:05", "1:02:03"]
