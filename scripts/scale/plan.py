"""What a job is to do, and what is done already: inputs into partitions, settings that must stay, sums at the end.

Runs where the job is started, and embeds nothing. Knows pyarrow's file systems; nothing of Ray or Spark.
"""

from __future__ import annotations

import json
import re
import sys
import time
import uuid
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import click
import pyarrow as pa
import pyarrow.parquet as pq
from partitions import EMBEDDING, TRUNCATED, UNFINISHED, VECTORS, Done, Job, Partition, done_before, is_parquet
from pyarrow import fs

from q3e_local import DEFAULT_MODEL
from q3e_local.errors import InputError, OptionError, OutputError, Q3EError, SpaceMismatchError
from q3e_local.wording.counts import counted, duration

_SUFFIXES = (".parquet", ".pq", ".jsonl", ".ndjson")
_SETTINGS = "job.json"
_TELL_S = 1  # at least, between two lines of progress
_READERS = 16  # footers read at the same time
_TEXT = ("string", "large_string", "string_view")


@dataclass(frozen=True)
class Plan:
    """A job, its partitions, and what became of those that are done."""

    job: Job
    settings: dict[str, Any]  # what an output cannot change
    partitions: list[Partition]
    done: list[Done]

    @property
    def to_do(self) -> list[Partition]:
        names = {each.name for each in self.done}
        return [each for each in self.partitions if each.name not in names]


_OPTIONS = (
    click.argument("source", metavar="INPUT"),
    click.argument("output", metavar="OUTPUT"),
    click.option("-m", "--model", default=DEFAULT_MODEL, show_default=True, help="A name, or a path."),
    click.option("--column", default="text", show_default=True, help="The column or field of the texts."),
    click.option("--keep", multiple=True, metavar="NAME", help="A column to go out too. [default: all of Parquet]"),
    click.option("--as", "kind", type=click.Choice(["document", "query"]), default="document", show_default=True),
    click.option("-d", "--dim", type=int, help="Numbers of a vector. [default: all of the model]"),
    click.option("--task", help="A named instruction, as of q3e-local embed."),
    click.option("--instruction", help="An instruction of your own."),
    click.option("--max-tokens", type=click.IntRange(1), help="The longest text. [default: the model's]"),
    click.option("--truncate", is_flag=True, help="Cut texts that are too long; else they are set aside."),
    click.option("--server", multiple=True, help="Let servers compute, in place of the workers; may be repeated."),
    click.option("--cpus", type=click.IntRange(1), default=1, show_default=True, help="Cores of a worker."),
    click.option(
        "--partition-mb", type=click.FloatRange(min=0, min_open=True), default=4.0, show_default=True,
        help="Megabytes of text in a partition, which is what is computed again when a machine is lost.",
    ),
)  # fmt: skip


def job_options(command: Callable[..., None]) -> Callable[..., None]:
    """The arguments and options that a job has on every engine."""
    for decorate in reversed(_OPTIONS):
        command = decorate(command)
    return command


def run(
    ask: Callable[[Job], tuple[str, str]],
    compute: Callable[[Plan], Iterable[Done]],
    source: str,
    output: str,
    **options: Any,
) -> None:
    """Do what is not done yet, and exit: with 1 where something is left.

    `ask` gives `space_of` on a worker; `compute` what became of each partition that is to do, as it is done.
    """
    try:
        plan = planned(source, output, **options)
        if plan.done:
            _say(f"{len(plan.done):,} of {counted(len(plan.partitions), 'partition')} done before")
        if plan.to_do:
            space, failure = ask(plan.job)
            if failure:
                sys.exit(f"error: {failure}")
            plan = begun(plan, space)
            sys.exit(finished(plan, compute(plan)))
        sys.exit(finished(plan, ()))
    except (Q3EError, OSError, pa.ArrowException) as error:
        sys.exit(f"error: {error}")


def planned(
    source: str, output: str, *, column: str, keep: tuple[str, ...], partition_mb: float, **options: Any
) -> Plan:
    """Read the inputs' footers and sizes, and what an earlier run left in the output. `options` are Job's.

    Raises InputError for inputs that are not there or have no such column, OptionError for an output inside the
    inputs and for one that was begun with other settings, OutputError for inputs that were changed since.
    """
    (input_system, root), (output_system, folder) = _system(source), _system(output)
    to, of = _plain(output_system, folder), _plain(input_system, root)
    if input_system == output_system and f"{to}/".startswith(f"{of}/"):
        raise OptionError(
            f"{output} is inside {source}, where the next run would take vectors for inputs; take another output"
        )
    files = _files(input_system, root)
    schema = _kept(input_system, files[0].path, column, keep)
    job = Job(input_system, output_system, folder, column=column, keep=schema, **options)
    n_bytes = max(1, int(partition_mb * 1e6))
    same = ("column", "kind", "dim", "task", "instruction", "truncate", "max_tokens")
    settings = {name: getattr(job, name) for name in same} | {"keep": str(schema), "partition_bytes": n_bytes}
    for name, value in settings.items():
        before = _settings(job).get(name, value)
        if before != value:
            raise OptionError(f"{output} was begun with {name} {before}, now it is {value}; take another output")
    with ThreadPoolExecutor(_READERS) as pool:
        cut = pool.map(lambda file: _partitions(input_system, root, file, column, n_bytes), files)
        partitions = [partition for some in cut for partition in some]
        now = {each.name: each for each in partitions}
        landed = _landed(job)
        earlier = [found for found in pool.map(lambda name: done_before(job, name), landed) if found]
    inputs = {file.path for file in files}
    gone = [partition for partition, _ in earlier if partition.file not in inputs]
    for partition, _ in earlier:
        if partition.file in inputs and partition != now.get(partition.name):
            raise OutputError(f"{partition.file} was changed since {output} was begun; take another output")
    if gone:
        parts = counted(len(gone), "partition stays", "partitions stay")
        _say(f"{parts} in {output} of files that are not among the inputs any more, such as {gone[0].file}")
    return Plan(job, settings, partitions, [done for partition, done in earlier if partition.name in now])


def begun(plan: Plan, space: str) -> Plan:
    """The plan with the space that a worker named, which the output's settings keep for the next run.

    Raises SpaceMismatchError where an earlier run's vectors are of another space.
    """
    job = replace(plan.job, space=space)
    before = _settings(job).get("space", space)
    if before != space:
        raise SpaceMismatchError(
            f"the workers' vectors are of the space {space}, those in {job.output} of {before}; take the earlier "
            "run's model, or another output"
        )
    job.output_system.create_dir(f"{job.output}/{UNFINISHED}", recursive=True)
    partial = f"{job.output}/{UNFINISHED}/{uuid.uuid4().hex}-{_SETTINGS}"
    with job.output_system.open_output_stream(partial) as stream:
        stream.write(json.dumps(plan.settings | {"space": space}, indent=1).encode())
    job.output_system.move(partial, f"{job.output}/{_SETTINGS}")
    return replace(plan, job=job)


def finished(plan: Plan, results: Iterable[Done]) -> int:
    """Say on stderr what is done, as it is done, and the sums. Returns the exit code."""
    done, failures = list(plan.done), []
    told = time.monotonic()
    for each in results:
        if each.failure:
            failures.append(each.failure)
        else:
            done.append(each)
            if time.monotonic() - told > _TELL_S:
                told = time.monotonic()
                _say(f"{len(done):,} of {counted(len(plan.partitions), 'partition')}")
    n_vectors, n_rejected = (sum(getattr(each, name) for each in done) for name in ("n_vectors", "n_rejected"))
    work = duration(sum(each.seconds for each in done))
    _say(f"{counted(n_vectors, 'vector')}, {n_rejected:,} texts set aside, {work} of all workers together")
    for failure in sorted(set(failures)):
        _say(f"failed: {failure}")
    if failures:
        _say(f"{counted(len(failures), 'partition')} left; mend what failed and run the same command again")
        return 1
    unfinished = f"{plan.job.output}/{UNFINISHED}"  # of workers that were lost
    if plan.job.output_system.get_file_info(unfinished).type == fs.FileType.Directory:
        plan.job.output_system.delete_dir(unfinished)
    return 0


def _system(place: str) -> tuple[fs.FileSystem, str]:
    """The file system of a folder or a URI, and the path in it. Raises OptionError."""
    try:
        return fs.FileSystem.from_uri(place if "://" in place else str(Path(place).absolute()))
    except (pa.ArrowException, OSError, ValueError) as error:
        raise OptionError(f"{place} is no place for files: {error}") from None


def _plain(system: fs.FileSystem, path: str) -> str:
    """A path by which two are compared: on this machine without links and `..`."""
    return Path(path).resolve().as_posix() if isinstance(system, fs.LocalFileSystem) else path


def _files(system: fs.FileSystem, root: str) -> list[fs.FileInfo]:
    """The files of a folder and its folders, by path, without hidden ones; or the file itself. Raises InputError."""
    info = system.get_file_info(root)
    found = (
        [info] if info.is_file else system.get_file_info(fs.FileSelector(root, recursive=True, allow_not_found=True))
    )
    shown = [each for each in found if each.is_file and not _is_hidden(each.path.removeprefix(root))]
    files = sorted((each for each in shown if each.path.endswith(_SUFFIXES)), key=lambda each: each.path)
    if not files:
        raise InputError(f"{root} has no files that end in {', '.join(_SUFFIXES)}")
    if len({is_parquet(each.path) for each in files}) > 1:
        raise InputError(f"{root} has both Parquet and JSON Lines; name one of them")
    if len(files) < len(shown):
        others = next(each.path for each in shown if not each.path.endswith(_SUFFIXES))
        _say(f"{counted(len(shown) - len(files), 'file')} of other kinds left out, such as {others}")
    return files


def _is_hidden(path: str) -> bool:
    return any(part.startswith((".", "_")) for part in path.split("/"))


def _kept(system: fs.FileSystem, path: str, column: str, keep: tuple[str, ...]) -> pa.Schema:
    """The columns that go out beside text and vector: of Parquet all, unless some are named; of JSON Lines strings.

    Raises InputError for a column that is not there or has no text, OptionError for a name that the output has.
    """
    if is_parquet(path):
        schema = _reading(path, lambda: pq.read_schema(path, filesystem=system))
        for name in (column, *keep):
            if name not in schema.names:
                raise InputError(f"{path} has no column {name!r}; it has {', '.join(schema.names)}")
        kind = schema.field(column).type
        kind = kind.value_type if pa.types.is_dictionary(kind) else kind
        if str(kind) not in _TEXT:
            raise InputError(f"{path} has no text in the column {column!r} but {kind}")
        names = [name for name in keep or schema.names if name != column]
        kept = pa.schema([schema.field(name) for name in names])
    else:
        kept = pa.schema([(name, pa.string()) for name in keep if name != column])
    for name in (EMBEDDING, TRUNCATED):
        if name in (column, *kept.names):
            raise OptionError(f"the output has a column {name!r} of its own; keep others than that, by --keep")
    return kept


def _partitions(system: fs.FileSystem, root: str, file: fs.FileInfo, column: str, n_bytes: int) -> list[Partition]:
    """A file in parts with about as many bytes of text; the same parts for the same file and size."""
    end, step = file.size, n_bytes
    if is_parquet(file.path):
        footer = _reading(file.path, lambda: pq.read_metadata(file.path, filesystem=system))
        groups = [footer.row_group(group) for group in range(footer.num_row_groups)]
        chunks = [group.column(place) for group in groups for place in range(group.num_columns)]
        n_text = sum(chunk.total_uncompressed_size for chunk in chunks if chunk.path_in_schema == column)
        end, step = footer.num_rows, max(1, n_bytes * footer.num_rows // max(1, n_text))
    inside = file.path.removeprefix(root) or file.base_name
    stem = re.sub(r"[^A-Za-z0-9_-]+", "-", file.base_name.rpartition(".")[0]).strip("-")[:40]
    name = f"{stem}-{sha256(inside.encode()).hexdigest()[:12]}"
    return [
        Partition(
            f"{name}-{start:012}", file.path, start, min(start + step, end), file.size, str(file.mtime_ns)
        )
        for start in range(0, end, step)
    ]  # fmt: skip


def _reading(path: str, read: Callable[[], Any]) -> Any:
    """What `read` gives. Raises InputError for a file that is no Parquet."""
    try:
        return read()
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path} cannot be read as Parquet: {error}") from None


def _landed(job: Job) -> list[str]:
    """The names of the partitions whose vectors are in the output."""
    selector = fs.FileSelector(f"{job.output}/{VECTORS}", allow_not_found=True)
    names = [each.base_name for each in job.output_system.get_file_info(selector) if each.is_file]
    return sorted(name.removesuffix(".parquet") for name in names if name.endswith(".parquet"))


def _settings(job: Job) -> dict[str, Any]:
    """What an earlier run wrote down; nothing where this is the first. Raises OutputError for what no run wrote."""
    try:
        with job.output_system.open_input_file(f"{job.output}/{_SETTINGS}") as file:
            return dict(json.loads(file.read()))
    except FileNotFoundError:
        return {}
    except (TypeError, ValueError) as error:
        raise OutputError(
            f"{job.output}/{_SETTINGS} is not what a job wrote there: {error}; take another output"
        ) from None


def _say(line: str) -> None:
    click.echo(line, err=True)
