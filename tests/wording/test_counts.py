"""Numbers as people write them."""

from __future__ import annotations

import pytest

from q3e_local.wording.counts import counted


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
