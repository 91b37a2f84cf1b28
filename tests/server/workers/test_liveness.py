"""When a process counts as hung: the rule, on counted looks at a process that does as the test says."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from q3e_local import machine
from q3e_local.server.workers.liveness import Bounds, Liveness, Pace, Task


class Watched:
    """A process that does as the test says, and a watch with bounds of 30 s and ten times the work."""

    def __init__(self) -> None:
        self.activity: tuple[float, int] | None = (0.0, 0)
        self.now = 0.0
        self.liveness = Liveness(Bounds(), lambda: self.activity, lambda: self.now)
        assert self.liveness.look(0) is None

    def looks_until_hung(self, does: Callable[[], None] = lambda: None, n_max: int = 100_000) -> tuple[int, str]:
        """How many seconds pass, and how it hangs then; `does` is what the process does in each second."""
        for n in range(1, n_max + 1):
            does()
            self.now += 1
            hung = self.liveness.look(1)
            if hung is not None:
                return n, hung
        return n_max, ""

    def computes(self) -> None:
        assert self.activity is not None
        self.activity = (self.activity[0] + 0.1, self.activity[1])

    def reads(self) -> None:
        assert self.activity is not None
        self.activity = (self.activity[0], self.activity[1] + 4096)

    def hides(self) -> None:
        self.activity = None


@pytest.mark.parametrize(("expected_s", "limit"), [(0.0, 30), (1.5, 45), (60.0, 630)])
def test_a_process_that_does_nothing_hangs_after_a_time_that_follows_its_work(expected_s: float, limit: int) -> None:
    watched = Watched()
    with watched.liveness.doing(Task("a batch of 9 tokens", expected_s)):
        seconds, hung = watched.looks_until_hung()
    assert seconds == limit + 1
    assert hung == f"neither computed nor read for {limit} s, the limit for a batch of 9 tokens"


@pytest.mark.parametrize("does", [Watched.computes, Watched.reads, Watched.hides])
def test_a_process_that_computes_or_reads_has_ten_times_as_long(does: Callable[[Watched], None]) -> None:
    watched = Watched()
    with watched.liveness.doing(Task("loading", 3)):
        seconds, hung = watched.looks_until_hung(lambda: does(watched))
    assert seconds == 601
    assert hung == "worked for 600 s, the limit for loading, and did not finish"


def test_a_process_that_had_hardly_any_cpu_for_a_while_is_not_taken_for_a_stopped_one() -> None:
    watched = Watched()
    n = 0

    def starved() -> None:
        nonlocal n
        n += 1
        if n % 29 == 0:
            watched.computes()

    with watched.liveness.doing(Task("a batch", 0)):
        assert watched.looks_until_hung(starved, 250) == (250, "")


def test_the_threads_of_an_idle_process_do_not_count_as_work() -> None:
    watched = Watched()

    def ticks() -> None:
        assert watched.activity is not None
        watched.activity = (watched.activity[0] + 0.001, 0)

    with watched.liveness.doing(Task("a batch", 0)):
        assert watched.looks_until_hung(ticks)[0] == 31


def test_each_piece_of_a_long_text_has_its_own_time() -> None:
    watched = Watched()
    with watched.liveness.doing(Task("a piece of a text of 32768 tokens", 1)) as progress:
        for _ in range(200):
            assert watched.looks_until_hung(watched.computes, 300) == (300, "")
            progress.part_done()
        # After pieces of 300 s, it may take 600 s and ten times that.
        assert watched.looks_until_hung()[0] == 30 + 10 * 600 + 1


def test_an_idle_process_does_not_hang_and_finished_work_is_forgotten() -> None:
    watched = Watched()
    assert watched.looks_until_hung(n_max=1000) == (1000, "")
    with watched.liveness.doing(Task("a long text", 100)):
        with watched.liveness.doing(Task("a batch", 0)):
            assert watched.looks_until_hung(n_max=30) == (30, "")
        assert watched.looks_until_hung()[0] == 1030 - 30 + 1


def test_no_time_passes_while_the_machine_sleeps_or_the_program_is_stopped() -> None:
    """An hour passes between two looks, and counts as the time of two looks."""
    now, n_looks = 0.0, 0

    def clock() -> float:
        nonlocal now
        now += 3600
        return now

    def activity() -> tuple[float, int]:
        nonlocal n_looks
        n_looks += 1
        return 0.0, 0

    liveness = Liveness(Bounds(least_s=0.1, factor=0, look_s=0.001), activity, clock)
    with ThreadPoolExecutor(1) as pool:
        hung = pool.submit(liveness.watch)
        with liveness.doing(Task("a batch", 0)):
            assert "neither computed nor read" in (hung.result(20) or "")
    assert n_looks > 0.1 / 0.002


def test_a_watch_that_is_closed_ends() -> None:
    liveness = Liveness(Bounds(), lambda: (0.0, 0))
    with ThreadPoolExecutor(1) as pool:
        hung = pool.submit(liveness.watch)
        with liveness.doing(Task("a batch", 0)):
            liveness.close()
            assert hung.result(20) is None
        assert pool.submit(liveness.watch).result(20) is None


def test_the_pace_gets_slower_at_once_and_faster_slowly_and_few_tokens_say_little() -> None:
    pace = Pace()
    assert pace.expected_s(500) == pytest.approx(10)  # 50 tokens a second, for all that is known
    pace.measure(500, 1)
    assert pace.expected_s(500) == pytest.approx(1)
    pace.measure(500, 5)
    assert pace.expected_s(500) == pytest.approx(5)
    pace.measure(500, 1)
    assert pace.expected_s(500) == pytest.approx(4.2)
    pace = Pace()
    pace.measure(2, 1.28)  # the weights are read for two tokens too
    assert pace.expected_s(512) == pytest.approx(5.12)
    assert pace.expected_s(1) == pytest.approx(1.28)


def test_what_a_process_does_shows_in_what_the_system_says_of_it() -> None:
    before = machine.activity(os.getpid())
    assert before is not None
    end = time.process_time() + 0.1
    while time.process_time() < end:
        pass
    after = machine.activity(os.getpid())
    assert after is not None
    assert after[0] >= before[0] + 0.05
    assert machine.activity(2**22 + 1) is None
