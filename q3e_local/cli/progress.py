"""The line on stderr that says how far a long job is. Shown on terminals only; stdout is never touched."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from rich.progress import TaskID


class Meter(Protocol):
    """Told what is done in all: bytes of input, texts, tokens."""

    def __call__(self, n_bytes: int, n_texts: int, n_tokens: int) -> None: ...


@contextmanager
def meter(n_bytes: int | None, quiet: bool) -> Iterator[Meter]:
    """A meter for `n_bytes` of input, or of unknown length: texts, tokens per second, time left."""
    if quiet or sys.stderr is None or not sys.stderr.isatty():
        yield lambda n_bytes, n_texts, n_tokens: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

    columns = (
        SpinnerColumn(),
        TextColumn("{task.fields[texts]:,} texts, {task.fields[rate]:,.0f} tokens/s"),
        BarColumn(bar_width=30),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("embed", total=n_bytes, texts=0, rate=0.0)

        def update(n_bytes: int, n_texts: int, n_tokens: int) -> None:
            seconds = progress.tasks[task].elapsed or 0
            progress.update(task, completed=n_bytes, texts=n_texts, rate=n_tokens / seconds if seconds else 0)

        yield update


class Counter(Protocol):
    """Told how much is done of how much there is."""

    def __call__(self, n_done: int, n_total: int) -> None: ...


@contextmanager
def counter(what: str, quiet: bool) -> Iterator[Counter]:
    """A bar for work that is counted, with the time left. Quiet where nobody looks."""
    if quiet or sys.stderr is None or not sys.stderr.isatty():
        yield lambda n_done, n_total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(bar_width=30), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(what, total=None)
        yield lambda n_done, n_total: progress.update(task, completed=n_done, total=n_total)


class Bar(Protocol):
    """Told what is being done and how far it is: bytes or pieces."""

    def __call__(self, what: str, done: int, total: int) -> None: ...


@contextmanager
def bar(quiet: bool) -> Iterator[Bar]:
    """A bar for the steps of a pull or a conversion: speed and time left. Quiet where nobody looks."""
    if quiet or sys.stderr is None or not sys.stderr.isatty():
        yield lambda what, done, total: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        tasks: dict[str, TaskID] = {}

        def update(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = progress.add_task(what, total=total)
            progress.update(tasks[what], completed=done, total=total)

        yield update
