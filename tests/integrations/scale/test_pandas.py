"""DataFrames of pandas, which the program's own tests do not have."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import pytest

from q3e_local import EmbedBatches
from q3e_local.errors import OptionError

TEXTS = ["The neighbour fed the cat.", None, "Prices fell in May."]


@pytest.mark.parametrize("dtype", ["object", "string", pd.ArrowDtype(pa.string())])
def test_a_frame_gets_a_column_of_arrays_and_stays_as_it_is(embedder, dtype):
    frame = pd.DataFrame({"id": 1, "text": pd.Series(TEXTS, [7, 8, 9], dtype)}, [7, 8, 9])
    made = EmbedBatches("demo", dim=64, errors="null")(frame)
    assert list(frame.columns) == ["id", "text"]
    assert list(made.columns) == ["id", "text", "embedding", "embedding_error"]
    assert list(made.index) == [7, 8, 9]
    expected = embedder.embed_documents([TEXTS[0], TEXTS[2]], 64).vectors
    np.testing.assert_allclose(np.stack(made["embedding"][[7, 9]].to_list()), expected, atol=1e-6)
    assert made["embedding"].isna().tolist() == [False, True, False]
    assert made["embedding_error"][8] == "is missing"


def test_a_frame_without_rows_keeps_its_columns():
    frame = pd.DataFrame({"text": pd.Series([], dtype=object)})
    made = EmbedBatches("demo", truncate=True)(frame)
    assert list(made.columns) == ["text", "embedding", "embedding_truncated"]
    assert len(made) == 0


def test_columns_without_a_name_are_told_too():
    with pytest.raises(OptionError, match="the batch has no column 'text'; it has 0, 1"):
        EmbedBatches("demo")(pd.DataFrame([["a", "b"]]))


def test_what_may_have_nulls_can_be_read_from_parquet_again(tmp_path):
    """Lists of fixed size with nulls cannot, by the pyarrow that Ray wants."""
    table = EmbedBatches("demo", dim=64, errors="null")(pa.table({"text": [*TEXTS, *TEXTS]}))
    pa.parquet.write_table(table, tmp_path / "vectors.parquet")
    assert pa.parquet.read_table(tmp_path / "vectors.parquet").column("embedding").null_count == 2
