"""Counting a JSON text before it is parsed: held to what Python's parser makes of the same text."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from q3e_local.server.dialects import counting
from q3e_local.server.dialects.counting import Items, count

TEXTS = st.text(st.sampled_from('a"\\[]{},: \n\u4e2d'), max_size=6)
FIELDS = ["input", "b", "c_d", "e.f-0"]
NAMES = st.sampled_from(FIELDS)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 999) | TEXTS,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(NAMES | TEXTS, inner, max_size=4),
    max_leaves=30,
)
BODIES = st.dictionaries(NAMES, VALUES, max_size=4)


def n_values(value: Any) -> int:
    """Values and names of fields; an empty list or object counts two."""
    if isinstance(value, list):
        return 1 + max(1, sum(map(n_values, value)))
    if isinstance(value, dict):
        return 1 + max(1, sum(1 + n_values(field) for field in value.values()))
    return 1


def lists(body: dict[str, Any], n_levels: int = 2) -> Iterator[Items]:
    """The lists that are fields of the body, or of an object in a field or in a list of the body."""
    for name, value in body.items():
        if isinstance(value, list):
            numbers = bool(value) and type(value[0]) is int
            yield Items(name, max(1, len(value)), numbers)
    if n_levels > 1:
        for value in body.values():
            if isinstance(value, dict):
                yield from lists(value, n_levels - 1)


@pytest.fixture(params=[2, 3, 7, 1 << 17], ids="slices of {}".format)
def _slices(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    # With slices of the real size, a text that a reader can check would have a single slice.
    monkeypatch.setattr(counting, "_SLICE", request.param)


SEPARATORS = st.sampled_from([(",", ":"), (" ,\n ", " :\t"), (", ", ": ")])


@pytest.mark.usefixtures("_slices")
def test_it_counts_what_parsing_builds() -> None:
    @settings(max_examples=60)
    @given(
        body=BODIES, separators=SEPARATORS, behind=st.sampled_from([b"", b" ", b" ]}", b'{"input":[1,2,3]}', b'"\\'])
    )
    def check(body: dict[str, Any], separators: tuple[str, str], behind: bytes) -> None:
        text = json.dumps(body, separators=separators, ensure_ascii=False).encode()
        counts = count(text + behind)
        assert (counts.n_values, counts.end) == (n_values(body), len(text))
        found = list(lists(body))
        if counts.longest is not None:
            assert counts.longest in found
            assert counts.longest.n == max(items.n for items in found)
        else:
            # A list under a name that no dialect has is not reported, and may be the longest.
            assert not found or any(items.field not in FIELDS for items in found)

    check()


@pytest.mark.usefixtures("_slices")
@pytest.mark.parametrize(
    ("text", "longest"),
    [
        (b'{"input":["a","b","c"]}', Items("input", 3, False)),
        (b'{"input" : [ 1 ,2]}', Items("input", 2, True)),
        (b'{"input":[-1]}', Items("input", 1, True)),
        (b'{"input":[[1,2,3,4],[5]]}', Items("input", 2, False)),
        (b'{"inputs":{"source_sentence":"a","sentences":["b","c"]}}', Items("sentences", 2, False)),
        (rb'{"a":"[\"b\":[1,2,3,4]","input":["\\\\","\\\"",","]}', Items("input", 3, False)),
        (b'{"x":{"a":1,"b":2,"c":3},"input":["a","b"]}', Items("input", 2, False)),
        (b'{"input":[{"a":1,"b":2},{"a":1}],"x":{"a":[3,4]}}', Items("input", 2, False)),
        (b'{"input":"a"}', None),
        (b'{"input":{"a":1}}', None),
    ],
)
def test_the_longest_list_is_found_and_named(text: bytes, longest: Items | None) -> None:
    assert count(text).longest == longest


@given(text=st.lists(st.sampled_from(list(b'[]{},:"\\ a1-\xff')), max_size=60).map(bytes), n_bytes=st.integers(2, 9))
def test_the_places_where_slices_part_make_no_difference_in_json_or_other_text(text: bytes, n_bytes: int) -> None:
    whole = count(text)
    assert whole.n_values >= 1
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(counting, "_SLICE", n_bytes)
        assert count(text) == whole


def test_it_stops_where_there_is_enough() -> None:
    counts = count(b'{"input":[' + b'"a",' * 1_000_000 + b'"a"]}', 100_000)
    assert 100_000 < counts.n_values < 200_000
    assert counts.end is None
    assert counts.longest is not None
    assert counts.n_values - 5 < counts.longest.n < counts.n_values
