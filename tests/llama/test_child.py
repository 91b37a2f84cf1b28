"""A child process answers calls, and its end is an error of the caller and nothing more."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
from paths import TESTS
from waiting import until

from q3e_local.errors import BadVectorError, CrashError, EngineError, ModelFileError, NotEnoughMemoryError
from q3e_local.llama.child import Child

posix = pytest.mark.skipif(sys.platform == "win32", reason="signals")


class Adder:
    """An object for the child: it counts, fails, logs or ends its process."""

    def __init__(self, start: int) -> None:
        if start < 0:
            raise ModelFileError("there is no such number")
        self._sum = start

    def add(self, number: int) -> int:
        self._sum += number
        return self._sum

    def pid(self) -> int:
        return os.getpid()

    def fail(self, kind: str) -> None:
        raise {
            "ours": BadVectorError("no vector", 3),
            "memory": MemoryError(),
            "a mistake": KeyError("a mistake of ours"),
        }[kind]

    def end(self, number: int) -> None:
        os.write(2, b"one\ntwo\n")
        os.kill(os.getpid(), number)

    def leave(self, code: int) -> None:
        os._exit(code)

    def log(self) -> None:
        logging.getLogger("q3e_local.llama.engine").warning("a line from %s", "the child")
        print("native code prints")  # noqa: T201

    def begin(self, file: str) -> None:
        Path(file).touch()
        time.sleep(600)


@pytest.fixture
def adder() -> Iterator[Child]:
    with Child(Adder, 10) as child:
        yield child


def test_the_object_lives_on_between_calls(adder):
    assert [adder.ask("add", 1), adder.ask("add", 2)] == [11, 13]
    assert adder.ask("pid") != os.getpid()


def test_errors_cross_as_they_are_and_the_child_lives_on(adder):
    with pytest.raises(BadVectorError, match="text 3: no vector"):
        adder.ask("fail", "ours")
    with pytest.raises(NotEnoughMemoryError, match="no memory left"):
        adder.ask("fail", "memory")
    with pytest.raises(EngineError, match="KeyError: 'a mistake of ours'"):
        adder.ask("fail", "a mistake")
    assert adder.ask("add", 1) == 11


def test_what_making_the_object_raises_each_call_raises():
    with Child(Adder, -1) as child:
        for _ in range(2):
            with pytest.raises(ModelFileError, match="no such number"):
                child.ask("add", 1)


@posix
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("SIGILL", r"was ended by SIGILL \(this build of llama\.cpp .*\); its last words: one \| two"),
        ("SIGABRT", r"was ended by SIGABRT \(llama\.cpp stopped itself\)"),
        ("SIGSEGV", "was ended by SIGSEGV"),
        ("SIGKILL", "was ended by SIGKILL"),
    ],
)
def test_a_child_that_a_signal_ends_is_an_error_with_the_cause_and_the_last_words(adder, name, said):
    number = getattr(signal, name)
    with pytest.raises(CrashError, match=said) as crash:
        adder.ask("end", number)
    assert (crash.value.exit_code, crash.value.last_words) == (-number, "one | two")
    assert not adder.is_alive
    with pytest.raises(CrashError, match=f"was ended by {name}"):
        adder.ask("add", 1)


def test_a_child_that_ends_itself_is_an_error_too(adder):
    assert adder.is_alive
    with pytest.raises(CrashError, match=r"ended with exit code 7; q3e-local doctor says what to do about it$"):
        adder.ask("leave", 7)


def test_log_lines_of_the_child_come_to_our_log_and_nothing_to_the_terminal(adder, caplog, capfd):
    adder.ask("log")
    assert caplog.record_tuples == [("q3e_local.llama.engine", logging.WARNING, "a line from the child")]
    adder.ask("add", 1)
    assert capfd.readouterr() == ("", "")


@posix
def test_signals_for_the_whole_group_leave_the_child_at_its_work(adder):
    pid = adder.ask("pid")
    for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(pid, number)
    assert adder.ask("add", 1) == 11


def test_a_child_that_does_not_answer_in_time_is_ended(adder, tmp_path):
    assert adder.ask("add", 1, timeout_s=60) == 11
    with pytest.raises(TimeoutError, match=r"^llama\.cpp's process gave no answer within 0\.2 s$"):
        adder.ask("begin", str(tmp_path / "began"), timeout_s=0.2)
    assert not adder.is_alive


@posix
def test_a_child_that_outlives_a_kill_does_not_keep_its_parent_from_its_end():
    """It waited for ever after all its work, once a driver hung: Python joins every child when it ends."""
    script = """
import time
from q3e_local.llama import child
child._ENDING_S = 0.3
left = child.Child(time.sleep, 600)
left._process.kill = lambda: None  # no test can have a real process that outlives a kill
try:
    left.ask("any", timeout_s=3)
except TimeoutError:
    left.close()
    print(left.is_alive)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stdout) == (0, "True\n"), done.stderr


@posix
def test_an_interrupted_call_ends_the_child(adder, tmp_path):
    """Otherwise the next call would get the answer to the interrupted call."""
    began = tmp_path / "began"

    def interrupt() -> None:
        until(began.exists)
        os.kill(os.getpid(), signal.SIGINT)

    pid = adder.ask("pid")
    with ThreadPoolExecutor(1) as pool:
        pool.submit(interrupt)
        with pytest.raises(KeyboardInterrupt):
            adder.ask("begin", str(began))
    assert not adder.is_alive
    assert not psutil.pid_exists(pid)


def test_closing_ends_the_child_and_closing_twice_is_fine():
    threads = set(threading.enumerate())
    child = Child(Adder, 0)
    pid = child.ask("pid")
    child.close()
    child.close()
    assert not psutil.pid_exists(pid)
    assert set(threading.enumerate()) <= threads


@posix
@pytest.mark.parametrize("end", ["os.kill(os.getpid(), 9)", "os._exit(0)", "sys.exit()", "child.close()"])
def test_the_child_ends_with_its_parent_in_the_middle_of_a_call(tmp_path, end):
    began, script = tmp_path / "began", tmp_path / "script.py"
    script.write_text(
        "import os, sys, threading, time\nfrom pathlib import Path\nfrom llama.test_child import Adder\n"
        "from q3e_local.llama.child import Child\n"
        "if __name__ == '__main__':\n"
        "    child = Child(Adder, 0)\n"
        "    print(child.ask('pid'), flush=True)\n"
        f"    threading.Thread(target=child.ask, args=('begin', {str(began)!r}), daemon=True).start()\n"
        f"    while not Path({str(began)!r}).exists():\n        time.sleep(0.01)\n"
        f"    {end}\n"
    )
    environment = os.environ | {"PYTHONPATH": str(TESTS)}
    done = subprocess.run(
        [sys.executable, script], env=environment, stdout=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL
    )
    until(lambda: not psutil.pid_exists(int(done.stdout)))
