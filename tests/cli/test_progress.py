"""What the live line says: counts, speed and time left, worked out by hand; and the characters it is made of."""

from __future__ import annotations

import io
from types import SimpleNamespace

import click
import pytest
from command import write
from rich.cells import cell_len

from q3e_local.cli import main
from q3e_local.cli.plain_characters import ERRORS, register
from q3e_local.cli.progress import Meter, Pace, laid_out
from q3e_local.cli.texts import Layout, check, find


class Clock:
    """Tells the time that a test sets."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr("q3e_local.cli.progress.time", SimpleNamespace(monotonic=clock))
    return clock


def test_the_time_left_is_known_from_the_first_piece_on_and_counts_down(clock):
    pace = Pace(100)
    assert (pace.fraction, pace.left_s()) == (0, None)
    clock.now += 30
    pace.worked(25)
    assert (pace.fraction, pace.left_s()) == (0.25, 90)
    clock.now += 20
    assert pace.left_s() == 70
    clock.now += 80
    assert pace.left_s() == 0
    pace.worked(50)  # the second piece took 100 s
    assert pace.left_s() == 130


def test_what_was_there_costs_no_time(clock):
    pace = Pace(100)
    clock.now += 5
    pace.skip(60)
    clock.now += 10
    pace.worked(10)
    assert (pace.fraction, pace.left_s()) == (0.7, 30)


def test_a_slow_model_has_an_estimate_after_its_first_batch_though_no_text_is_kept_yet(clock):
    meter = Meter("text", 20, 4000)
    clock.now += 30
    meter.computed(2, 200)  # 200 tokens are about 800 of 4,000 bytes
    assert "0 of 20 texts" in meter.line(100)
    assert meter.line(100).endswith("7 tokens/s, 2:00 left")
    meter.kept(1000, 200)  # they were of 1,000 bytes
    assert "1 of 20 texts" in meter.line(100)
    assert meter.line(100).endswith("1:30 left")


def test_what_a_cache_had_makes_the_rest_no_faster(clock):
    meter = Meter("text", 4, 400)
    meter.kept(100, 25, cached=True)
    meter.kept(100, 25, cached=True)
    clock.now += 10
    meter.computed(3, 75)
    meter.kept(100, 25)
    assert "3 of 4 texts" in meter.line(100)
    assert meter.line(100).endswith("2 tokens/s, 0:10 left")


def test_bytes_stand_for_texts_that_are_too_many_to_count(clock):
    meter = Meter("text", None, 40_000_000, 3)
    meter.skipped(1_000_000)
    meter.kept(9_000_000, 10)
    assert "4 texts, 10.0 of 40.0 MB ━" in meter.line(100)
    assert Meter("text", None, None).line(100)[2:] == "0 texts"


def test_where_nothing_is_known_of_the_rest_the_line_says_how_long_it_took_so_far(clock):
    meter = Meter("text", 20, 4000)
    clock.now += 12
    assert meter.line(100).endswith("─  0:12")


@pytest.mark.parametrize("width", [*range(1, 60), 99, 139])
def test_a_line_is_never_wider_than_the_terminal(width, clock):
    pace = Pace(100)
    clock.now += 3
    pace.worked(40)
    for head in ("", "1,234 of 5,000 texts", "downloading from hub 第三季度预算复盘模型.gguf", "a\nb\x1b[31m"):
        line = laid_out(width, head, pace, "1,234 tokens/s")
        assert cell_len(line) <= width
        assert line.isprintable()


LAYOUTS = {
    "a file": (Layout(), "one\n\ntwo\n", 1),
    "lines": (Layout(lines=True), "one\n\ntwo\n  \nthree", 3),
    "jsonl": (Layout(jsonl="t"), '{"t": "one"}\n\n{"t": "two"}\n', 2),
    "csv": (Layout(column="t"), 't,u\n"one\nmore",1\ntwo,2\n', 2),
}


@pytest.mark.parametrize(("layout", "content", "n_texts"), LAYOUTS.values(), ids=LAYOUTS)
def test_the_texts_of_an_input_are_counted_before_they_are_read(layout, content, n_texts, tmp_path):
    write(tmp_path, {"in": content})
    source = find(["in"], ["one more"], None, layout)
    said = []
    assert check(source, None, False, said.append) == n_texts + 1 == len(list(source.read(said.append)))


def test_what_can_be_read_only_once_is_not_counted(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"one")))
    for layout in (Layout(), Layout(lines=True)):
        assert check(find(["-"], [], None, layout), None, False, print) is None


# Characters that an encoding lacks.


@pytest.mark.parametrize(
    ("encoding", "shown"),
    [
        ("gbk", "<< a >> “b” — … * → × é 文"),
        ("latin-1", '« a » "b" - ... * -> × é ?'),
        ("utf-8", "« a » “b” — … • → × é 文"),
    ],
)
def test_a_plain_character_stands_for_one_that_the_pipe_lacks(encoding, shown, monkeypatch):
    written = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(written, encoding))
    command = click.Command("x", callback=lambda: click.echo("« a » “b” — … • → × é 文"))
    monkeypatch.setattr(main, "get_command", lambda ctx, name: command)
    with pytest.raises(SystemExit):
        main(["x"])
    assert written.getvalue().decode(encoding).splitlines() == [shown]


def test_a_character_without_a_plain_one_is_a_question_mark():
    register()
    assert "«é ½ … ａ文 ☃".encode("ascii", ERRORS) == b"<<e 1/2 ... a? ?"
