"""`q3e-local embed` as a real process: Ctrl-C, kill, pipes that close, closed streams, memory."""

from __future__ import annotations

import errno
import io
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
from command import PROGRAM, command, embed, expected, ids, listing, records, run, write
from screen import wait_until

from q3e_local.cli.stdout import is_reader_gone
from q3e_local.cli.stopping import stopping_cleanly, uninterrupted
from q3e_local.wording.counts import counted

if sys.platform == "win32":
    pytest.skip("Windows has no SIGHUP and no terminals of POSIX", allow_module_level=True)

N_MANY = 200_000


@pytest.fixture
def many(tmp_path: Path) -> Path:
    """More lines than a test has time for."""
    path = tmp_path / "many.txt"
    path.write_text("".join(f"{n}\n" for n in range(N_MANY)))
    return path


@contextmanager
def started(arguments: list[str], **streams: object) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(arguments, **({"stderr": subprocess.PIPE} | streams))
    try:
        with process:
            yield process
            process.wait(30)
    finally:
        process.kill()


def size(path: str) -> int:
    return Path(path).stat().st_size if Path(path).exists() else 0


# Stopped and continued.


@pytest.mark.parametrize("name", ["out.jsonl", "out.npy"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_a_run_that_is_stopped_can_go_on(number, name, many, tmp_path):
    with started(command("--lines", many.name, "-d", 32, "-o", name)) as process:
        wait_until(lambda: size(name) > 20_000)
        process.send_signal(number)
        said = process.stderr.read().decode()
    lines_file = tmp_path / (name if name == "out.jsonl" else f"{name}.rows.jsonl")
    raw = lines_file.read_bytes()
    n_whole = raw.count(b"\n")
    assert 0 < n_whole < N_MANY
    if number != signal.SIGKILL:
        assert process.returncode == 130
        assert said == (
            f"Interrupted: {n_whole:,} texts are in {name}; go on with: "
            f"q3e-local embed -m demo --lines many.txt -d 32 -o {name} --resume\n"
        )
        assert raw.endswith(b"}\n")
    else:
        assert process.returncode == -number
    if name == "out.npy" and number != signal.SIGKILL:
        assert np.load(name).shape == (n_whole, 32)

    lines = many.read_text().splitlines()[: n_whole + 40]
    many.write_text("\n".join(lines))
    result = embed("--lines", many.name, "-d", 32, "-o", name, "--resume")
    assert result.exit_code == 0
    assert f"({n_whole:,} were there already)" in result.stderr or name == "out.npy"
    if name == "out.npy":
        got = np.load(name)
        names = [line.split(b'"id":"')[1].split(b'"')[0].decode() for line in lines_file.read_bytes().splitlines()]
    else:
        got = np.array([record["embedding"] for record in records(lines_file.read_bytes())])
        names = ids(lines_file.read_bytes())
    assert names == [f"many.txt:{n}" for n in range(1, len(lines) + 1)]
    # The last digits of a vector depend on the other texts of its batch.
    assert np.sum(got * expected(lines, dim=32).vectors, axis=1).min() > 0.9999


@pytest.mark.parametrize(
    ("name", "number"),
    [("out.csv", signal.SIGINT), ("out.parquet", signal.SIGTERM), ("out.json", signal.SIGHUP)],
)
def test_what_stops_a_run_leaves_no_half_of_a_whole_format(name, number, many, tmp_path):
    (tmp_path / name).write_text("of value")
    before = listing(tmp_path)
    with started(command("--lines", many.name, "-d", 32, "-o", name, "--force")) as process:
        wait_until(lambda: any(size(str(path)) > 0 for path in tmp_path.glob(".*.partial")))
        process.send_signal(number)
        said = process.stderr.read().decode()
    assert process.returncode == 130
    assert re.fullmatch(r"Interrupted(\.|: nothing is kept of [\d,]+ texts?: only .*)\n", said)
    assert listing(tmp_path) == before


def test_ctrl_c_in_a_pipe_leaves_whole_records(many):
    with started(command("--lines", many.name), stdout=subprocess.PIPE) as process:
        first = process.stdout.readline()
        process.send_signal(signal.SIGINT)
        rest = process.stdout.read()
        said = process.stderr.read().decode()
    whole = first + rest
    assert whole.endswith(b"}\n")
    assert process.returncode == 130
    n_whole = whole.count(b"\n")
    written = counted(n_whole, "text was", "texts were")
    assert said == f"Interrupted: {written} written; with -o FILE.jsonl or FILE.npy a run can be continued\n"
    assert ids(whole) == [f"many.txt:{n}" for n in range(1, n_whole + 1)]


class Interrupting(io.RawIOBase):
    """A stream in which Ctrl-C comes instead of bytes."""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> None:
        signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("output", [(), ("-o", "out.jsonl")])
def test_ctrl_c_while_it_waits_for_stdin(output):
    result = embed("--lines", *output, input=io.BufferedReader(Interrupting()))
    assert (result.exit_code, result.stdout, result.stderr) == (130, "", "Interrupted.\n")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupt_waits_until_the_record_is_written_and_a_second_interrupt_does_not(number):
    written = []

    def write_record(n_signals: int) -> None:
        with stopping_cleanly(), uninterrupted():
            for _ in range(n_signals):
                signal.raise_signal(number)
            written.append(n_signals)

    for n_signals in (1, 2):
        with pytest.raises(KeyboardInterrupt):
            write_record(n_signals)
    assert written == [1]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_a_signal_that_is_ignored_stays_so():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        with stopping_cleanly(), uninterrupted():
            signal.raise_signal(signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_sigterm_stops_an_import_as_ctrl_c_does(monkeypatch, tmp_path):
    monkeypatch.setattr(
        "q3e_local.models.importing.import_file", lambda *arguments, **options: signal.raise_signal(signal.SIGTERM)
    )
    result = run("import", tmp_path / "x.gguf")
    assert (result.exit_code, result.stderr) == (130, "Interrupted.\n")


@pytest.mark.parametrize("name", ["out.jsonl", "out.npy"])
def test_a_second_writer_is_refused(name, tmp_path):
    with started(command("--lines", "-d", 32, "-o", name), stdin=subprocess.PIPE) as process:
        process.stdin.write(b"".join(b"one more, %d\n" % place for place in range(1100)))
        process.stdin.flush()
        wait_until(lambda: size(name) > 0)
        for option in "--force", "--resume":
            result = embed("--text", "one", "-d", 32, "-o", name, option)
            assert result.exit_code == 1
            assert result.stderr.startswith(f"Error: {name} is being written by another process; ")
        process.stdin.close()
        process.wait(30)
    assert process.returncode == 0
    assert not set(listing(tmp_path)) - {name, f"{name}.rows.jsonl"}
    assert embed("--text", "one", "-o", name, "--force").exit_code == 0


def test_a_home_that_cannot_be_written_is_no_reason_to_refuse_an_output(tmp_path, monkeypatch):
    write(tmp_path, {"file": ""})
    monkeypatch.setenv("Q3E_HOME", str(tmp_path / "file"))
    assert embed("--text", "one", "-o", "out.jsonl").exit_code == 0


# Pipes.


@pytest.mark.parametrize("form", ["jsonl", "csv", "base64", "table", "json"])
def test_a_reader_that_has_seen_enough_is_no_error(form, many):
    with started(command("--lines", many.name, "-q", "--format", form), stdout=subprocess.PIPE) as process:
        assert process.stdout.readline()
        process.stdout.close()
        said = process.stderr.read()
    assert (process.returncode, said) == (0, b"")


@pytest.mark.parametrize(
    "arguments",
    [
        ["embed", "-m", "demo", "--lines", "a.txt", "-q", "--format", "npy"],
        ["embed", "-m", "demo", "--lines", "a.txt", "-q", "--format", "jsonl"],
        ["embed", "--help"], ["--help"], ["list", "--json"],
    ],
)  # fmt: skip
def test_a_reader_that_reads_nothing_is_no_error(arguments, tmp_path):
    write(tmp_path, {"a.txt": "one\n" * 500})
    with started([*PROGRAM, *arguments], stdout=subprocess.PIPE) as process:
        process.stdout.close()
        said = process.stderr.read()
    assert (process.returncode, said) == (0, b"")


def test_only_a_broken_stdout_ends_well(monkeypatch):
    monkeypatch.setattr("q3e_local.load", Mock(side_effect=BrokenPipeError("a child is gone")))
    with pytest.raises(BrokenPipeError):
        embed("--text", "one")


def test_the_error_of_windows_for_a_broken_pipe_is_known():
    assert is_reader_gone(OSError(errno.EINVAL, "Invalid argument"), on_windows=True)
    assert not is_reader_gone(OSError(errno.EINVAL, "Invalid argument"), on_windows=False)
    assert not is_reader_gone(OSError(errno.ENOSPC, "No space left on device"), on_windows=True)


def test_records_come_while_the_input_still_runs():
    with started(command("--lines", "-d", 32), stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        process.stdin.write(b"".join(b"one more, %d\n" % place for place in range(600)))
        process.stdin.flush()
        assert process.stdout.readline().startswith(b'{"index":0,"id":"stdin:1",')
        process.stdin.close()
        rest = list(process.stdout)
        assert process.stderr.read().startswith(b"600 texts, ")
    assert len(rest) == 599
    assert process.returncode == 0


@pytest.mark.parametrize("locale", ["C", "C.UTF-8"])
def test_bytes_of_stdin_are_utf8_whatever_the_locale(locale, tmp_path):
    environment = os.environ | {"LC_ALL": locale, "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    write(tmp_path, {"文.txt": "预算"})
    for arguments, wanted in (["-"], "stdin"), (["文.txt"], "文.txt"):
        got = subprocess.run(
            command(*arguments, "-q"), input="预算\n".encode(), capture_output=True, check=True, env=environment
        )
        (record,) = records(got.stdout)
        assert record["id"] in (wanted, "???.txt")  # in the locale C, Python does not decode the bytes of this name
        np.testing.assert_array_equal(record["embedding"], expected(["预算"]).vectors[0])


def test_an_error_shows_on_a_console_that_cannot_show_it(tmp_path):
    environment = os.environ | {"PYTHONIOENCODING": "latin-1"}
    failing, table = ("--text", "一", "文.txt"), ("--text", "预算 budget", "--format", "table")
    got = subprocess.run(command(*failing), capture_output=True, check=False, env=environment)
    assert got.returncode == 1
    assert got.stderr.startswith(b"Error: there is no file or folder ?.txt")
    got = subprocess.run(command(*table), capture_output=True, check=True, env=environment)
    assert "预算 budget" in got.stdout.decode("utf-8")


# Streams that are closed.


@pytest.mark.parametrize(
    ("redirection", "arguments", "code", "said"),
    [
        ("<&-", "-", 1, "Error: stdin is closed\n"),
        ("<&-", "", 2, "Error: nothing to read: name files or folders, give --text, or pipe text in\n"),
        (">&-", "--text one", 1, "Error: stdout is closed; write to a file with -o FILE\n"),
        (">&-", "--text one -q -o out.jsonl", 0, ""),
        ("2>&-", "--text one -o out.jsonl", 0, ""),
        ("<&- >&- 2>&-", "--text one -o out.npy", 0, ""),
        ("2>&-", "--text ''", 1, ""),
    ],
)
def test_streams_that_are_closed(redirection, arguments, code, said):
    line = f"{' '.join(command())} {arguments} {redirection}"
    got = subprocess.run(line, shell=True, capture_output=True, check=False)
    assert (got.returncode, got.stdout, got.stderr.decode()) == (code, b"", said)


# Memory.


def peak_memory(path: Path) -> float:
    """The most memory, in MB, that embedding the lines of a file took.

    getrusage would not do: what it says of a process on Linux is at least the peak of the process that started it.
    The vectors that a stream remembers for repeated texts are few here: at full size they would take minutes to fill.
    """
    program = (
        "import sys; from q3e_local.cli import main; from q3e_local.embedding import stream\n"
        "stream._MEMORY_BYTES = 100_000\n"
        "try:\n    main(sys.argv[1:])\nexcept SystemExit as exit:\n    assert not exit.code, exit\n"
        "print(open('/proc/self/status').read(), file=sys.stderr)"
    )
    arguments = [sys.executable, "-c", program, "embed", "-m", "demo", "-q", "--lines", str(path)]
    got = subprocess.run(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=True)
    return int(re.search(rb"VmHWM:\s+(\d+) kB", got.stderr)[1]) / 1e3


@pytest.mark.skipif(sys.platform != "linux", reason="Linux says in /proc what the peak was")
def test_memory_does_not_grow_with_the_number_of_texts(many, tmp_path):
    lines = many.read_text().splitlines(keepends=True)
    write(tmp_path, {"few": "".join(lines[:1500]), "more": "".join(lines[:21_500])})
    # The vectors alone of 20,000 more are 20 MB. A peak comes out up to 5 MB higher in one run than in another.
    assert peak_memory(tmp_path / "more") - peak_memory(tmp_path / "few") < 10
