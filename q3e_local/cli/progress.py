"""What the live line says about work: how far it is, how fast, and how long it will take.

Arithmetic and words; leaves the screen to `terminal`. Shows nothing where stderr is no terminal, or with --quiet.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial

from q3e_local.cli.plain_characters import SPINNER
from q3e_local.cli.terminal import has_screen, live, refresh
from q3e_local.cli.writing.show import visible
from q3e_local.wording.counts import counted_of, duration, size_of

BYTES_PER_TOKEN = 4  # about, in most languages
_BAR_WIDTH = (8, 30)  # at least and at most: a shorter bar is too coarse to read
_PATIENCE_S = 2  # before a line without an estimate says how long it has taken

Counter = Callable[[int, int], None]
"""`count(n_done, n_total)`"""
Bar = Callable[[str, int, int], None]
"""`show(what, done, total)`, in bytes"""
Stage = Callable[[str, int, int, int], None]
"""`show(what, n_done, n_total, n_cached)`"""


class Pace:
    """How far work is, and how long the rest takes at the speed so far; known after the first piece."""

    def __init__(self, total: float | None) -> None:
        self.total = total
        self._began = self._at = time.monotonic()
        self.skipped = self._worked = 0.0

    @property
    def done(self) -> float:
        """How much is done, with work or without."""
        return self.skipped + self._worked

    @property
    def fraction(self) -> float | None:
        """The share that is done; None where the total is not known."""
        return min(1.0, self.done / self.total) if self.total else None

    def skip(self, amount: float) -> None:
        """Count a part of the total that needs no work, such as what an earlier run did."""
        self.skipped += amount
        if not self._worked:
            self._began = time.monotonic()

    def worked(self, amount: float) -> None:
        """Set how much was done by work, in all."""
        if amount != self._worked:
            self._worked, self._at = amount, time.monotonic()

    def per_s(self, amount: float) -> float | None:
        """The rate at which the work so far did `amount`."""
        seconds = self._at - self._began
        return amount / seconds if seconds > 0 else None

    @property
    def speed(self) -> float | None:
        """How much work was done in a second; None before the first piece."""
        return self.per_s(self._worked)

    @property
    def elapsed_s(self) -> float:
        """Seconds since the work began."""
        return time.monotonic() - self._began

    def left_s(self) -> float | None:
        """Seconds until all is done, counting down between two pieces; None before the first piece."""
        speed = self.speed
        if not self.total or not speed:
            return None
        rest = max(0.0, self.total - self.done)
        return max(0.0, rest / speed - (time.monotonic() - self._at))


class Meter:
    """Embeddings being computed: counts what is kept, and estimates the time left from what is computed.

    A slow model computes for half a minute before the first text is kept, so computed tokens count too: as many bytes
    of input for each as the texts so far had.
    """

    def __init__(self, what: str, n_total: int | None, n_bytes: int | None, n_there: int = 0) -> None:
        self._what, self._n_total, self._n_bytes = what, n_total, n_bytes
        self._pace = Pace(n_bytes)
        self._n_done = n_there
        self._n_bytes_kept = self._n_tokens_kept = 0  # of what was computed
        self._n_tokens_cached = self._n_tokens_done = 0

    def skipped(self, n_bytes: int, n_there: int = 0) -> None:
        """Count input that needs no computing; `n_there` more texts of it are kept already."""
        self._n_done += n_there
        self._pace.skip(n_bytes)

    def kept(self, n_bytes: int, n_tokens: int, n: int = 1, *, cached: bool = False) -> None:
        """Count `n` texts more as kept."""
        self._n_done += n
        if cached:
            self._n_tokens_cached += n_tokens
            self.skipped(n_bytes)
        else:
            self._n_bytes_kept += n_bytes
            self._n_tokens_kept += n_tokens
            self._update()

    def computed(self, n_texts: int, n_tokens: int) -> None:
        """Set how many tokens are done in all, kept or not; called after each batch, as a stream's `progress`."""
        self._n_tokens_done = n_tokens
        self._update()

    def line(self, width: int) -> str:
        """What the live line says."""
        head = counted_of(self._n_done, self._n_total, self._what)
        if self._n_total is None and self._n_bytes is not None:
            n_read = min(self._n_bytes, round(self._pace.skipped) + self._n_bytes_kept)
            head = f"{head}, {size_of(n_read, self._n_bytes)}"
        rate = self._pace.per_s(self._n_computed) if self._n_computed else None
        return laid_out(width, head, self._pace, f"{rate:,.0f} tokens/s" if rate else "")

    @property
    def _n_computed(self) -> int:
        """Tokens that were computed, not taken from a cache."""
        return max(self._n_tokens_kept, self._n_tokens_done - self._n_tokens_cached)

    def _update(self) -> None:
        per_token = self._n_bytes_kept / self._n_tokens_kept if self._n_tokens_kept else BYTES_PER_TOKEN
        self._pace.worked(self._n_computed * per_token)


@contextmanager
def meter(what: str, n_total: int | None, n_bytes: int | None, quiet: bool, n_there: int = 0) -> Iterator[Meter]:
    """Show a meter for `n_total` texts, or what `what` names, of `n_bytes` of input; None where that is not known.

    An earlier run has kept `n_there` of them.
    """
    shown = Meter(what, n_total, n_bytes, n_there)
    with live(shown.line, quiet):
        yield shown


@contextmanager
def counter(what: str, quiet: bool) -> Iterator[Counter]:
    """Show a bar for work that is counted."""
    pace = Pace(None)

    def count(n_done: int, n_total: int) -> None:
        pace.total = n_total
        pace.worked(n_done)

    with live(lambda width: laid_out(width, what, pace), quiet):
        yield count


@contextmanager
def bar(quiet: bool) -> Iterator[Bar]:
    """Show a bar for each step of a pull or a conversion in turn."""
    step, pace = "", Pace(None)

    def update(what: str, done: int, total: int) -> None:
        nonlocal step, pace
        if what != step or done < pace.done:  # another step, or the same begins again
            step, pace = what, Pace(total)
            pace.skip(done)  # what was there already, such as half a download
            refresh()
        pace.total = total
        pace.worked(done - pace.skipped)

    def line(width: int) -> str:
        amount = size_of(round(pace.done), round(pace.total)) if pace.total else ""
        rate = f", {pace.speed / 1e6:.1f} MB/s" if amount and pace.speed else ""
        return laid_out(width, step, pace, f"{amount}{rate}") if step else ""

    with live(line, quiet):
        yield update


@contextmanager
def stages(quiet: bool) -> Iterator[Stage]:
    """Show a bar for each stage of a work in turn, from its first call to the call that has all; nothing between."""
    with ExitStack() as shown:
        what, pace = "", Pace(None)

        def show(stage: str, n_done: int, n_total: int, n_cached: int) -> None:
            nonlocal what, pace
            if stage != what:
                shown.close()
                what, pace = stage, Pace(n_total)
                shown.enter_context(live(partial(_stage_line, what, pace), quiet))
            if n_cached > pace.skipped:
                pace.skip(n_cached - pace.skipped)
            pace.worked(n_done - n_cached)
            if n_done >= n_total:
                what = ""
                shown.close()

        yield show


def _stage_line(what: str, pace: Pace, width: int) -> str:
    return laid_out(width, what, pace, f"{pace.done:,.0f} of {pace.total:,.0f}")


@contextmanager
def status(what: str, quiet: bool = False, about_s: float | None = None) -> Iterator[None]:
    """Show what the command waits for, and for how long already, or how long of `about_s` seconds is left."""
    pace = Pace(about_s)

    def line(width: int) -> str:
        if about_s:
            pace.worked(min(pace.elapsed_s, about_s))
        return laid_out(width, what, pace)

    with live(line, quiet):
        yield


def is_shown(quiet: bool) -> bool:
    """Whether anybody sees the live line."""
    return not quiet and has_screen()


def laid_out(width: int, head: str, pace: Pace, rate: str = "") -> str:
    """A line with what is done, a bar, how fast it goes, and the time that is left or went by; as much as fits."""
    from rich.cells import cell_len, set_cell_size  # know how wide Chinese is

    fraction, left_s, when = pace.fraction, pace.left_s(), ""
    if left_s is not None:
        when = f"{duration(left_s)} left"
    elif pace.elapsed_s >= _PATIENCE_S:
        when = duration(pace.elapsed_s)
    frame = SPINNER[int(time.monotonic() * 10) % len(SPINNER)]
    head = f"{frame} {visible(head)}".rstrip()
    for tail in (", ".join(filter(None, (rate, when))), when, ""):
        room = width - cell_len(head) - (cell_len(tail) + 2 if tail else 0)
        if room >= 0:
            break
    n_bar = min(_BAR_WIDTH[1], room - 1)
    if fraction is not None and n_bar >= _BAR_WIDTH[0]:
        n_done = round(fraction * n_bar)
        head = f"{head} {'━' * n_done}{'─' * (n_bar - n_done)}"
    line = f"{head}  {tail}" if tail else head
    return line if cell_len(line) <= width else set_cell_size(line, max(0, width - 1)).rstrip() + "…"
