"""Whose turn it is on the engine's thread, and how large the pieces of a long text are: counted, on a fake clock."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
from waiting import until

from q3e_local.embedding.batching import N_TILE
from q3e_local.errors import EngineError
from q3e_local.llama.owner import InTurn, Owner
from q3e_local.llama.stride import STEP_S, Stride


class Clock:
    """Stands still unless something takes time."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


class Beside:
    """A long text of steps of one second each, and batches that come at its first step. `order` is what was done."""

    def __init__(self, *batches_s: float) -> None:
        self.clock, self.order = Clock(), ""
        self.owner, self.answers = Owner(self.clock), list[Future[Any]]()
        self.coming = [self.batch(seconds) for seconds in batches_s]
        self._pool = ThreadPoolExecutor(4)

    def text(self, n_steps: int) -> str:
        """Compute the long text. The batches wait, in their order, when its first step is done."""
        for _ in range(n_steps):
            self.clock.now += 1
            self.order += "s"
            while self.coming:
                n_before = self.owner.n_waiting
                self.answers.append(self._pool.submit(self.owner.batch, self.coming.pop(0)))
                until(lambda n=n_before + 1: self.owner.n_waiting == n)
            self.owner.let_in()
        return "the vector"

    def batch(self, seconds: float) -> Callable[[], float]:
        def compute() -> float:
            self.clock.now += seconds
            self.order += "b"
            return seconds

        return compute

    def end(self) -> list[Any]:
        """What the batches answered."""
        self._pool.shutdown()
        self.owner.close(lambda: None)
        return [answer.exception() or answer.result() for answer in self.answers]


def test_batches_that_keep_coming_leave_a_long_text_half_of_the_time():
    beside = Beside(3, 3, 3, 3)
    beside.owner.long(beside.text, 12)
    assert beside.order == "sb" + "sssb" * 3 + "ss"
    assert beside.end() == [3, 3, 3, 3]


def test_batches_are_computed_between_two_pieces_of_a_long_text_whatever_they_took_before():
    beside = Beside(50)
    beside.owner.batch(beside.batch(1000))
    beside.owner.long(beside.text, 2)  # not as long as the batch before it
    beside.owner.long(beside.text, 2)
    assert beside.order == "bssbss"
    assert beside.end() == [50]


def test_the_thread_is_shared_while_batches_wait_or_came_in_the_last_minute():
    beside = Beside(1)
    assert not beside.owner.is_shared
    beside.owner.long(lambda: [beside.text(1), beside.owner.is_shared])
    for later, expected in ((59, True), (1, False)):
        beside.clock.now += later
        assert beside.owner.is_shared is expected
    beside.end()


def test_what_a_batch_raises_is_its_callers_and_the_long_text_goes_on():
    def fail() -> None:
        raise EngineError("this batch")

    beside = Beside()
    beside.coming = [fail]
    assert beside.owner.long(beside.text, 3) == "the vector"
    (error,) = beside.end()
    assert str(error) == "this batch"


def test_a_batch_that_ctrl_c_left_in_the_queue_does_not_hold_up_the_next(monkeypatch):
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    beside, answers = Beside(), list[float]()
    with monkeypatch.context() as patch:
        patch.setattr(beside.owner, "_submit", interrupted)  # a Ctrl-C just there cannot be timed
        with pytest.raises(KeyboardInterrupt):
            beside.owner.batch(beside.batch(1))
    threading.Thread(target=lambda: answers.append(beside.owner.batch(beside.batch(2))), daemon=True).start()
    until(lambda: answers)
    assert answers == [2]
    assert beside.owner.n_waiting == 0
    beside.end()


def test_a_lock_in_turn_goes_to_the_thread_that_waits_longest_and_not_back():
    lock, order = InTurn(), []

    def take(name: str) -> None:
        with lock:
            order.append(name)

    with ThreadPoolExecutor(2) as pool:
        with lock:
            for n, name in enumerate("ab"):
                pool.submit(take, name)
                until(lambda n=n: len(lock._line) == n + 2)  # a thread that waits shows no sign of it
        take("again")
        until(lambda: len(order) == 3)
    assert order == ["a", "b", "again"]
    assert not lock.is_taken


def test_a_thread_that_is_interrupted_while_it_waits_leaves_the_line(monkeypatch):
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    lock = InTurn()
    with lock:
        with monkeypatch.context() as patch:
            patch.setattr(threading.Condition, "wait", interrupted)
            with pytest.raises(KeyboardInterrupt), lock:
                pytest.fail("it was not its turn")
        assert len(lock._line) == 1  # a stale place in the line would show only as a wait without an end
    assert not lock.is_taken


def test_closing_runs_the_last_work_once_also_while_python_ends():
    """From `atexit` it ran never: Python had ended the thread before."""
    script = (
        "import atexit\n"
        "from q3e_local.llama.owner import Owner\n"
        "owner = Owner()\n"
        "atexit.register(owner.close, lambda: print('freed twice'))\n"
        "atexit.register(owner.close, lambda: print('freed'))\n"
        "print(owner.do(lambda: 'worked'))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("worked\nfreed\n", "")
    owner, freed = Owner(), []
    owner.do(lambda: None)
    for name in ("first", "second"):
        owner.close(lambda name=name: freed.append(name))
    assert freed == ["first"]


@pytest.mark.parametrize(
    ("n_piece", "layer_s", "expected"),
    [
        (512, STEP_S / 30, 512),
        (512, STEP_S, 512),
        (512, 2 * STEP_S, 256),
        (512, 3 * STEP_S, 128),  # whole tiles
        (512, 100 * STEP_S, N_TILE),  # fewer would be added up in f16
        (64, STEP_S / 4, 256),  # the machine has time again
        (64, STEP_S / 1000, 512),
    ],
)
def test_pieces_get_smaller_when_a_layer_of_them_takes_long(n_piece, layer_s, expected):
    clock = Clock()
    stride = Stride(512, clock)
    assert stride.n_tokens == 512
    stride.begin(n_piece)
    for _ in range(28):
        clock.now += layer_s
        stride.stepped()
        clock.now += 1000  # other texts, let in between the layers
        stride.go_on()
    stride.end()
    assert stride.n_tokens == expected


def test_where_no_layers_are_seen_a_piece_is_a_step():
    clock = Clock()
    stride = Stride(1024, clock)
    stride.begin(1024)
    clock.now += 4 * STEP_S
    stride.end()
    assert stride.n_tokens == 256
