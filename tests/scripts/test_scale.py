"""The jobs of scripts/scale without an engine: partitions, what is set aside, going on, and what is refused.

tests/integrations/scale runs them on Ray and Spark.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from command import expected
from paths import ROOT

from q3e_local.errors import InputError, OptionError, OutputError, SpaceMismatchError

DIM = 64
OPTIONS = {"model": "demo", "kind": "document", "dim": DIM} | dict.fromkeys(
    ("task", "instruction", "truncate", "max_tokens")
)
LINES = [
    b'\xef\xbb\xbf{"id": 1, "text": "The cat sleeps."}',
    b'{"id": 2, "text": "\xe9\x82\xbb\xe5\xb1\x85\xe5\x96\x82\xe4\xba\x86\xe7\x8c\xab\xe3\x80\x82", "tags": ["a"]}',
    b"",
    b"{broken",
    b'["no object"]',
    b'{"id": 5, "text": ""}',
    b'{"id": 6}',
    b'{"id": 7, "text": 7}\r',
    b'{"id": "8", "text": "Prices fell in May.", "tags": null}',
]


@pytest.fixture(scope="module")
def scale():
    """The modules `partitions` and `plan`, as the scripts import them."""
    folder = str(ROOT / "scripts" / "scale")
    sys.path.insert(0, folder)
    try:
        yield {name: importlib.import_module(name) for name in ("partitions", "plan")}
    finally:
        sys.path.remove(folder)
        for name in ("partitions", "plan"):
            sys.modules.pop(name, None)


class Jobs:
    """A job that is done here, partition by partition, in place of an engine."""

    def __init__(self, scale, source: Path, output: Path):
        self.partitions, self.plan = scale["partitions"], scale["plan"]
        self.source, self.output = source, output

    def planned(self, **options):
        usual = {"column": "text", "keep": (), "partition_mb": 1.0, **OPTIONS}
        return self.plan.planned(str(self.source), str(self.output), **usual | options)

    def begun(self, **options):
        plan = self.planned(**options)
        return self.plan.begun(plan, self.partitions.space_of(plan.job)[0])

    def run(self, **options) -> int:
        plan = self.begun(**options)
        return self.plan.finished(plan, [self.partitions.embed_partition(plan.job, each) for each in plan.to_do])

    def vectors(self) -> pa.Table:
        return pq.read_table(self.output / "vectors")

    def rejected(self) -> list[tuple[int, str, str | None]]:
        """Place, the beginning of the reason, and text of each, by place."""
        rows = [row for path in (self.output / "rejected").iterdir() for row in pq.read_table(path).to_pylist()]
        assert {row["file"] for row in rows} <= {str(path) for path in (self.source, *self.source.rglob("*"))}
        return sorted((row["place"], row["reason"].split(":")[0], row["text"]) for row in rows)


@pytest.fixture
def lines(scale, tmp_path) -> Jobs:
    source = tmp_path / "corpus.jsonl"
    source.write_bytes(b"\n".join(LINES))
    return Jobs(scale, source, tmp_path / "out")


@pytest.fixture
def rows(scale, tmp_path) -> Jobs:
    """Two files of Parquet, with row groups of 4 rows."""
    source = tmp_path / "corpus"
    (source / "more").mkdir(parents=True)
    for name, first in (("a.parquet", 0), ("more/a.parquet", 10)):
        ids = list(range(first, first + 10))
        texts = [None if place % 10 == 3 else f"Text number {place}." for place in ids]
        table = pa.table(
            {"id": pa.array(ids, pa.int32()), "text": texts, "tags": [["a", str(place)] for place in ids]}
        )
        pq.write_table(table, source / name, row_group_size=4)
    (source / "_SUCCESS").write_text("")
    return Jobs(scale, source, tmp_path / "out")


def place_of(number: int) -> int:
    """The byte at which a line of LINES begins."""
    return sum(len(line) + 1 for line in LINES[:number])


@pytest.mark.parametrize("partition_mb", [1, 0.0001, 0.00003, 0.000001])
def test_every_line_is_once_in_the_output_wherever_the_parts_begin(lines, partition_mb):
    assert lines.run(partition_mb=partition_mb, keep=("id", "tags")) == 0
    made = lines.vectors().sort_by("id")
    assert made.schema.names == ["id", "tags", "text", "embedding"]
    assert made.column("id").to_pylist() == ["1", "2", "8"]
    assert made.column("tags").to_pylist() == [None, '["a"]', None]
    texts = ["The cat sleeps.", "邻居喂了猫。", "Prices fell in May."]
    assert made.column("text").to_pylist() == texts
    assert made.schema.field("embedding").type == pa.list_(pa.float32(), DIM)
    vectors = np.stack(made.column("embedding").to_numpy())
    np.testing.assert_allclose(vectors, expected(texts, dim=DIM).vectors, atol=1e-6)
    assert lines.rejected() == [
        (place_of(3), "is not JSON", "{broken"),
        (place_of(4), "is not a JSON object but list", '["no object"]'),
        (place_of(5), "is blank", ""),
        (place_of(6), "is missing", None),
        (place_of(7), "a text must be a str, got int", "7"),
    ]
    assert len([*(lines.output / "vectors").iterdir()]) == -(
        -lines.source.stat().st_size // max(1, int(partition_mb * 1e6))
    )


@pytest.mark.parametrize("partition_mb", [1, 0.00006, 0.000001])
def test_every_row_is_once_in_the_output_with_the_types_of_its_columns(rows, partition_mb):
    assert rows.run(partition_mb=partition_mb) == 0
    made = rows.vectors().sort_by("id")
    assert made.schema.types == [pa.int32(), pa.list_(pa.string()), pa.string(), pa.list_(pa.float32(), DIM)]
    ids = [place for place in range(20) if place % 10 != 3]
    assert made.column("id").to_pylist() == ids
    assert made.column("tags").to_pylist() == [["a", str(place)] for place in ids]
    vectors = np.stack(made.column("embedding").to_numpy())
    np.testing.assert_allclose(
        vectors, expected([f"Text number {place}." for place in ids], dim=DIM).vectors, atol=1e-6
    )
    assert rows.rejected() == [(4, "is missing", None), (4, "is missing", None)]
    assert {path.name for path in rows.output.iterdir()} == {"job.json", "vectors", "rejected"}


def test_texts_that_were_cut_are_marked(lines):
    lines.source.write_text('{"text": "cat"}\n' + json.dumps({"text": "cat" * 20}))
    lines.run(truncate=True, max_tokens=12)
    assert lines.vectors().column("embedding_truncated").to_pylist() == [False, True]


def test_the_same_command_goes_on_with_what_is_not_done(lines, capsys):
    plan = lines.begun(partition_mb=0.0001)
    n_parts = len(plan.partitions)
    assert n_parts > 2
    lines.partitions.embed_partition(plan.job, plan.partitions[1])
    (done,) = (lines.output / "vectors").iterdir()
    before = done.stat().st_mtime_ns
    assert [each.name for each in lines.planned(partition_mb=0.0001).to_do] == [
        each.name for each in plan.partitions if each.name != done.stem
    ]
    assert lines.run(partition_mb=0.0001) == 0
    assert done.stat().st_mtime_ns == before
    assert lines.vectors().num_rows == 3
    assert capsys.readouterr().err.splitlines()[-1].startswith("3 vectors, 5 texts set aside, ")
    assert lines.planned(partition_mb=0.0001).to_do == []


def test_new_files_beside_the_old_are_new_parts(rows):
    rows.run()
    pq.write_table(
        pa.table({"id": pa.array([99], pa.int32()), "text": ["New."], "tags": [["b"]]}), rows.source / "b.parquet"
    )
    assert len(rows.planned().to_do) == 1
    rows.run()
    assert rows.vectors().num_rows == 19


def test_a_partition_that_two_workers_have_lands_once(lines):
    plan = lines.begun()
    (part,) = plan.partitions
    first = lines.partitions.embed_partition(plan.job, part)
    assert lines.partitions.embed_partition(plan.job, part) == first
    assert len([*(lines.output / "vectors").iterdir()]) == 1


def test_a_file_that_is_not_whole_is_no_part(lines):
    plan = lines.begun()
    lines.partitions.embed_partition(plan.job, plan.partitions[0])
    (file,) = (lines.output / "vectors").iterdir()
    file.write_bytes(file.read_bytes()[:-20])
    assert len(lines.planned().to_do) == 1
    lines.run()
    assert lines.vectors().num_rows == 3


def test_a_file_that_cannot_be_read_is_named_and_the_others_are_done(rows, capsys):
    plan = rows.begun()
    (rows.source / "more" / "a.parquet").write_bytes(b"PAR1 no more")
    results = [rows.partitions.embed_partition(plan.job, each) for each in plan.to_do]
    assert rows.plan.finished(plan, results) == 1
    said = capsys.readouterr().err
    assert "failed: " in said
    assert "more/a.parquet" in said
    assert "1 partition left; mend what failed and run the same command again" in said
    assert rows.vectors().num_rows == 9
    assert [*(rows.output / "unfinished").iterdir()] == []


def test_a_worker_with_another_model_under_the_name_writes_nothing(lines):
    plan = lines.begun()
    job = replace(plan.job, space=plan.job.space.replace("q3e1-", "q3e1-0"))
    done = lines.partitions.embed_partition(job, plan.partitions[0])
    assert "demo is another model here" in done.failure
    assert "put the same file on all machines" in done.failure
    assert not (lines.output / "vectors").exists()


def test_a_worker_without_the_model_says_how_to_get_it(lines):
    space, failure = lines.partitions.space_of(replace(lines.planned().job, model="qwen3-embedding:8b"))
    assert space == ""
    assert "q3e-local pull qwen3-embedding:8b" in failure


def test_an_output_stays_with_what_it_was_begun_with(lines, rows):
    lines.run()
    for options, message in (
        ({"dim": 128}, "was begun with dim 64, now it is 128; take another output"),
        ({"partition_mb": 2.0}, "was begun with partition_bytes 1000000, now it is 2000000"),
        ({"keep": ("id",)}, "was begun with keep"),
    ):
        with pytest.raises(OptionError, match=message):
            lines.planned(**options)
    with pytest.raises(SpaceMismatchError, match="take the earlier run's model, or another output"):
        lines.plan.begun(lines.planned(), "q3e1-00000000-64-plain")


def test_inputs_that_were_edited_since_are_refused(lines):
    lines.run()
    lines.source.write_bytes(lines.source.read_bytes() + b'\n{"text": "more"}')
    with pytest.raises(OutputError, match=r"corpus.jsonl was changed since .*out was begun; take another output"):
        lines.planned()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"column": "body"}, "has no column 'body'; it has id, text, tags"),
        ({"keep": ("body",)}, "has no column 'body'"),
        ({"column": "id"}, "has no text in the column 'id' but int32"),
    ],
)
def test_a_column_that_is_not_there_is_told_before_anything_runs(rows, options, message):
    with pytest.raises(InputError, match=message):
        rows.planned(**options)


def test_inputs_that_are_none_are_told(rows, capsys):
    (rows.source / "notes.txt").write_text("no table")
    rows.planned()
    assert f"1 file of other kinds left out, such as {rows.source}/notes.txt" in capsys.readouterr().err
    (rows.source / "b.jsonl").write_text("{}")
    with pytest.raises(InputError, match="has both Parquet and JSON Lines; name one of them"):
        rows.planned()
    rows.source = rows.source / "nothing"
    with pytest.raises(InputError, match=r"nothing has no files that end in \.parquet"):
        rows.planned()
    rows.source = "s4://bucket/corpus"
    with pytest.raises(OptionError, match="s4://bucket/corpus is no place for files"):
        rows.planned()


def test_a_name_that_the_output_has_is_refused(lines):
    with pytest.raises(OptionError, match="the output has a column 'embedding' of its own"):
        lines.planned(keep=("embedding",))


def test_a_file_that_shrinks_while_the_job_runs_fails_its_partition_and_nothing_waits(lines):
    plan = lines.begun()
    lines.source.write_bytes(b"\n".join(LINES[:2]))
    done = lines.partitions.embed_partition(plan.job, plan.partitions[0])
    assert "corpus.jsonl" in done.failure
    assert "ends at byte" in done.failure
    assert [*(lines.output / "vectors").iterdir()] == [*(lines.output / "unfinished").iterdir()] == []


def test_a_file_that_is_edited_while_the_job_runs_fails_its_partition(lines):
    plan = lines.begun()
    lines.source.write_bytes(b"\n".join(reversed(LINES)))
    os.utime(lines.source, (1, 1))
    done = lines.partitions.embed_partition(plan.job, plan.partitions[0])
    assert "was changed while the job ran" in done.failure
    assert [*(lines.output / "vectors").iterdir()] == []


def test_a_file_whose_parts_are_others_since_it_was_edited_is_refused(rows):
    plan = rows.begun(partition_mb=0.00006)
    last = next(each for each in reversed(plan.partitions) if "more" not in each.file)
    rows.partitions.embed_partition(plan.job, last)
    table = pq.read_table(rows.source / "a.parquet")
    pq.write_table(pa.concat_tables([table.slice(0, 2)] * 2), rows.source / "a.parquet")
    assert last.name not in {each.name for each in rows.plan._partitions(*_whole(rows), "text", 60)}
    with pytest.raises(OutputError, match=r"a.parquet was changed since .*out was begun; take another output"):
        rows.planned(partition_mb=0.00006)


def _whole(rows: Jobs):
    system = pa.fs.LocalFileSystem()
    return system, str(rows.source), system.get_file_info(str(rows.source / "a.parquet"))


def test_vectors_of_inputs_that_are_gone_are_told_and_not_counted(rows, capsys):
    rows.run()
    (rows.source / "a.parquet").unlink()
    capsys.readouterr()
    assert rows.run() == 0
    said = capsys.readouterr().err
    where = rows.source / "a.parquet"
    assert (
        f"1 partition stays in {rows.output} of files that are not among the inputs any more, such as {where}" in said
    )
    assert "9 vectors, 1 texts set aside" in said


def test_an_output_inside_the_inputs_is_refused_whose_vectors_would_be_inputs(rows):
    (rows.source.parent / "link").symlink_to(rows.source)
    for folder in (rows.source / "more", rows.source.parent / "link"):
        rows.output = folder / "out"
        with pytest.raises(
            OptionError, match=r"is inside .*corpus, where the next run would take vectors for inputs"
        ):
            rows.planned()
    rows.output = rows.source / ".." / "corpus-out"
    assert rows.run() == 0


def test_a_text_that_is_not_utf_8_is_set_aside(lines):
    lines.source = lines.source.with_name("corpus.parquet")
    raw = pa.array([b"good", b"b\xffd", None], pa.binary())
    strings = pa.Array.from_buffers(pa.string(), 3, raw.buffers())
    pq.write_table(pa.table({"text": strings}), lines.source)
    assert lines.run() == 0
    assert lines.vectors().column("text").to_pylist() == ["good"]
    assert lines.rejected() == [(2, "is not text in UTF-8 but bytes", "b\ufffdd"), (3, "is missing", None)]


@pytest.mark.parametrize("settings", [b'{"col', b"", b"[1]"])
def test_settings_that_no_job_wrote_are_told(lines, settings):
    lines.run()
    (lines.output / "job.json").write_bytes(settings)
    with pytest.raises(OutputError, match=r"job.json is not what a job wrote there: .*; take another output"):
        lines.planned()


def test_an_output_that_cannot_be_written_is_one_sentence(lines):
    options = {"column": "text", "keep": (), "partition_mb": 1.0, **OPTIONS}
    (lines.output.parent / "file").write_text("no folder")
    output = str(lines.output.parent / "file" / "out")
    with pytest.raises(SystemExit, match=r"error: .*file"):
        lines.plan.run(lines.partitions.space_of, lambda plan: [], str(lines.source), output, **options)
