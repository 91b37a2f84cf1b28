"""What is sent to a store and what is deleted there, with a store in memory that fails when a test wants it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from q3e_local.errors import OutputError, SpaceMismatchError
from q3e_local.stores.filling import Filling
from q3e_local.stores.rows import Row, Shape, digest_of, uuid_of

SHAPE = Shape("demo", "q3e1-ab-4-plain", 4, {"file": "text", "line": "integer"})


class Memory:
    """Rows by id as (row, source), and the calls that were made. `fails_at`: the upsert that fails, from 1."""

    n_batch = 3
    keeps_parts = True

    def __init__(self, mark: str | None = None) -> None:
        self.found_mark, self.there = mark, {}
        self.sent: list[list[str]] = []
        self.fails_at = 0

    def mark(self) -> str | None:
        return self.found_mark

    def create(self, shape: Shape) -> None:
        self.found_mark = shape.mark

    def digests(self, source: str) -> dict[str, str]:
        return {name: row.digest for name, (row, of) in self.there.items() if of == source}

    def sources(self, ids: Sequence[str]) -> Mapping[str, str | None]:
        return {name: self.there[name][1] for name in ids if name in self.there}

    def upsert(self, rows: Sequence[Row], vectors: np.ndarray, source: str) -> None:
        assert vectors.shape == (len(rows), 4)
        self.sent.append([row.id for row in rows])
        if len(self.sent) == self.fails_at:
            raise OutputError("the store fell over")
        self.there |= {row.id: (row, source) for row in rows}

    def delete(self, ids: Sequence[str]) -> None:
        for name in ids:
            del self.there[name]

    def finish(self) -> Sequence[str]:
        return ("a note",)

    def close(self) -> None:
        pass


def row(name: str, text: str = "text") -> Row:
    return Row(name, text, {"file": None, "line": 1}, digest_of(text))


def fill(store: Memory, rows: list[Row], source: str = "a", *, deletes: bool = True) -> Filling:
    filling = Filling(store, "here#q3e", SHAPE, source)
    for each in rows:
        if not filling.has(each.id, each.digest):
            filling.put(each, np.ones(4, np.float32) / 2)
    if deletes:
        filling.flush()
        filling.delete_others({each.id for each in rows})
    filling.finish()
    return filling


def test_rows_go_in_batches_and_the_last_one_too():
    store = Memory()
    filling = fill(store, [row(str(number)) for number in range(7)])
    assert store.sent == [["0", "1", "2"], ["3", "4", "5"], ["6"]]
    assert (filling.n_sent, filling.n_there, filling.notes) == (7, 7, ("a note",))


def test_again_only_what_changed_is_sent_and_what_is_gone_is_deleted():
    store = Memory()
    fill(store, [row("a"), row("b"), row("c")])
    filling = fill(store, [row("a"), row("b", "new"), row("d")])
    assert store.sent[1:] == [["b", "d"]]
    assert (filling.n_sent, filling.n_deleted, sorted(store.there)) == (2, 1, ["a", "b", "d"])
    assert store.there["b"][0].text == "new"


def test_what_was_sent_before_a_failure_is_not_sent_again():
    store = Memory()
    store.fails_at = 2
    rows = [row(str(number)) for number in range(8)]
    with pytest.raises(OutputError, match="fell over"):
        fill(store, rows)
    assert sorted(store.there) == ["0", "1", "2"]
    fill(store, rows)
    assert store.sent[2:] == [["3", "4", "5"], ["6", "7"]]


def test_nothing_is_deleted_where_it_is_not_asked_for():
    store = Memory()
    fill(store, [row("a")])
    fill(store, [row("b")], deletes=False)
    assert sorted(store.there) == ["a", "b"]


@pytest.mark.parametrize("source", ["b", None, ""])
def test_rows_of_others_are_neither_replaced_nor_deleted(source):
    store = Memory()
    fill(store, [row("a")])
    store.there["own"] = (row("own", "mine"), source)
    fill(store, [row("a"), row("c")])
    assert store.there["own"][0].text == "mine"
    with pytest.raises(OutputError, match=r"here#q3e has rows with the ids 'own' that this export did not put there"):
        fill(store, [row("own")])
    assert store.there["own"][0].text == "mine"


def test_a_row_that_somebody_else_took_over_is_left_alone():
    store = Memory()
    fill(store, [row("a"), row("b")])
    store.there["a"] = (row("a", "mine"), None)
    assert fill(store, [row("b")]).n_deleted == 0
    assert "a" in store.there


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        (Shape("demo", "q3e1-ab-8-plain", 8, SHAPE.fields), "holds 4-dim vectors of demo, not 8-dim vectors of demo"),
        (
            Shape("other", "q3e1-cd-4-plain", 4, SHAPE.fields),
            "holds 4-dim vectors of demo, not 4-dim vectors of other",
        ),
        (
            Shape("demo", "q3e1-cd-4-plain", 4, SHAPE.fields),
            "holds 4-dim vectors of demo (space q3e1-ab-4-plain), not 4-dim vectors of demo (space q3e1-cd-4-plain)",
        ),
        (Shape("", "", 4, SHAPE.fields), "holds 4-dim vectors of demo, not 4-dim vectors of your own"),
    ],
)
def test_vectors_of_another_space_are_refused_with_both_named(shape, message):
    store = Memory(SHAPE.mark)
    with pytest.raises(
        SpaceMismatchError, match=re.escape(f"here#q3e {message}; name another collection with #NAME")
    ):
        Filling(store, "here#q3e", shape, "a")


def test_another_name_of_the_same_model_is_the_same_space():
    Filling(Memory(SHAPE.mark), "here#q3e", Shape("alias", SHAPE.space, 4, SHAPE.fields), "a")


@pytest.mark.parametrize("mark", ["", "{}", "[1]", '{"q3e_local": 2}', "not JSON", '{"q3e_local": 1}'])
def test_a_collection_that_is_not_ours_is_refused(mark):
    with pytest.raises(
        OutputError, match="here#q3e was not made by q3e-local, and does not say what its vectors are"
    ):
        Filling(Memory(mark), "here#q3e", SHAPE, "a")


def test_other_fields_are_refused():
    with pytest.raises(OutputError, match="here#q3e has the fields file, line, these rows have label; "):
        Filling(Memory(SHAPE.mark), "here#q3e", Shape("demo", SHAPE.space, 4, {"label": "text"}), "a")


def test_an_id_is_the_same_uuid_on_every_machine():
    # SHA-1 of the namespace and the id, with the bits of version 5 set, as RFC 9562 has it.
    assert uuid_of("notes/a.md#0") == "2e7b672e-ee2a-534a-b93e-d3692e3e5323"


def test_a_digest_tells_parts_apart():
    assert digest_of("ab", "c") != digest_of("a", "bc")
    assert digest_of("a", b"b") == digest_of("a", "b")
