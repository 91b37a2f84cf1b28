"""A batch of each kind comes back as that kind, with the library's vectors behind its own columns.

pandas is not part of the program's tests: tests/integrations/scale has DataFrames.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from command import expected

from q3e_local import EmbedBatches
from q3e_local.errors import InvalidTextError, OptionError

TEXTS = ["The neighbour fed the cat.", "邻居喂了猫。", "Prices fell in May."]
VECTORS = expected(TEXTS, dim=64).vectors


def embed(**options):
    return EmbedBatches("demo", dim=64, **options)


def close(found, vectors=VECTORS):
    np.testing.assert_allclose(np.stack(list(found)), vectors, atol=1e-6)


@pytest.mark.parametrize("dtype", [object, "U"])
def test_a_dict_of_arrays_gets_an_array(dtype):
    batch = {"id": np.arange(3), "text": np.array(TEXTS, dtype)}
    made = embed()(batch)
    assert list(made) == ["id", "text", "embedding"]
    assert made["id"] is batch["id"]
    assert (made["embedding"].dtype, made["embedding"].shape) == (np.float32, (3, 64))
    close(made["embedding"])
    assert list(batch) == ["id", "text"]


def test_a_dict_of_lists_gets_a_list():
    made = embed()({"text": list(TEXTS)})
    assert isinstance(made["embedding"], list)
    close(made["embedding"])


def test_a_list_of_texts_gives_a_list_of_vectors():
    close(embed()(list(TEXTS)))


def test_a_list_of_dicts_gives_other_dicts():
    batch = [{"text": text, "id": place} for place, text in enumerate(TEXTS)]
    made = embed()(batch)
    assert [each["id"] for each in made] == [0, 1, 2]
    close(each["embedding"] for each in made)
    assert all("embedding" not in each for each in batch)


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())])
def test_arrow_gets_a_list_of_fixed_size_that_says_its_space(kind):
    table = pa.table({"text": pa.array(TEXTS, pa.string()).cast(kind), "id": [1, 2, 3]})
    table = table.replace_schema_metadata({"source": "notes"})
    for batch in (table, table.to_batches()[0]):
        made = embed()(batch)
        assert type(made) is type(batch)
        assert made.schema.names == ["text", "id", "embedding"]
        assert made.schema.metadata == {b"source": b"notes"}
        field = made.schema.field("embedding")
        assert field.type == pa.list_(pa.float32(), 64)
        assert field.metadata == {b"model": b"demo", b"space": expected(TEXTS, dim=64).space.encode()}
        close(made.column("embedding").to_pylist())


def test_tables_in_several_chunks_stay_in_order():
    table = pa.concat_tables([pa.table({"text": [text]}) for text in TEXTS])
    close(embed()(table).column("embedding").to_pylist())


def test_an_iterator_gives_batches_one_by_one_with_the_lists_that_spark_knows():
    read = []

    def batches():
        for text in TEXTS:
            read.append(text)
            yield pa.record_batch({"text": [text]})

    made = embed()(batches())
    first = next(made)
    assert read == TEXTS[:1]
    assert first.schema.field("embedding").type == pa.list_(pa.float32())
    close([first.column("embedding").to_pylist()[0], *(each.column("embedding").to_pylist()[0] for each in made)])


def test_batches_without_rows_keep_their_columns():
    table = pa.table({"text": pa.array([], pa.string())})
    made = embed(errors="null", truncate=True)(table)
    assert made.schema.types == [pa.string(), pa.list_(pa.float32()), pa.bool_(), pa.string()]
    assert embed()(table).schema.types == [pa.string(), pa.list_(pa.float32(), 64)]
    assert embed()({"text": np.array([], object)})["embedding"].shape == (0, 64)
    assert embed()([]) == []


def test_a_slice_of_arrow_gets_the_vectors_of_its_own_rows():
    table = pa.table({"text": TEXTS}).slice(1, 2)
    close(embed()(table).column("embedding").to_pylist(), VECTORS[1:])


def test_what_is_no_batch_is_told():
    with pytest.raises(OptionError, match=r"a batch must be a dict of arrays.*got str$"):
        embed()("a text")
    with pytest.raises(OptionError, match="column 'text' of the batch is one text; put it in a list"):
        embed()({"text": "a text"})


@pytest.mark.parametrize("kind", ["string", "large_string", "dictionary"])
def test_a_string_of_arrow_that_is_not_utf_8_has_no_vector_and_the_others_have(kind):
    # Files may have such strings: Arrow reads them without a look, and raises where Python wants one.
    raw = pa.array([b"cat", b"d\xffg", None], pa.binary() if kind != "large_string" else pa.large_binary())
    strings = pa.Array.from_buffers(pa.large_string() if kind == "large_string" else pa.string(), 3, raw.buffers())
    if kind == "dictionary":
        strings = pa.DictionaryArray.from_arrays(pa.array([0, 1, 2]), strings)
    made = EmbedBatches("demo", errors="null")(pa.table({"text": strings}))
    assert made.column("embedding_error").to_pylist() == [None, "is not text in UTF-8 but bytes", "is missing"]
    with pytest.raises(InvalidTextError, match=r"is not text in UTF-8 but bytes.*row 1 of 'text'"):
        EmbedBatches("demo")(pa.table({"text": strings}))
