"""docs/scale.md: its arithmetic follows from measured figures, and its commands have the options of the jobs."""

from __future__ import annotations

import re
import shlex
import sys

import pytest
from paths import ROOT

PAGE = (ROOT / "docs" / "scale.md").read_text(encoding="utf-8")
SPEED, SPEED_4B, N_TOKENS = 287, 41, 128  # tokens/s on 2 cores, tokens of a chunk
CHUNKS = {"10,000": 1e4, "100,000": 1e5, "1 million": 1e6, "1 billion": 1e9}


def rows(begin: str) -> dict[str, list[str]]:
    """The cells of a table's rows, by the first cell; the table is that whose head begins so."""
    table = PAGE[PAGE.index(begin) :].partition("\n\n")[0].splitlines()[2:]
    return {
        cells[0]: cells[1:] for cells in ([cell.strip() for cell in line.strip("|").split("|")] for line in table)
    }


def number(text: str) -> float:
    """The number that a text begins with."""
    return float(re.match(r"[\d,.]+", text)[0].replace(",", ""))


def test_the_figures_are_those_that_were_measured():
    performance = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
    assert f"| **q3e-local, library** | {SPEED} |" in performance
    assert f"The 4B, 4 texts of 128 tokens at once, twice: {SPEED_4B} tokens/s" in performance
    assert f"Measured: {SPEED} tokens/s" in PAGE
    assert f"and {SPEED_4B} by the 4B" in PAGE


@pytest.mark.parametrize("chunks", CHUNKS)
def test_hours_follow_from_them(chunks):
    tokens, laptop, hours, hours_4b = rows("| chunks of 128 tokens |")[chunks]
    n_tokens = CHUNKS[chunks] * N_TOKENS
    unit = {"million": 1e6, "billion": 1e9}[tokens.split()[1]]
    assert number(tokens) * unit == n_tokens
    of_unit = {"h": 1, "days": 24, "years": 24 * 365}[laptop.split()[1]]
    assert number(laptop) == pytest.approx(n_tokens / SPEED / 3600 / of_unit, rel=0.04)
    assert number(hours) == pytest.approx(2 * n_tokens / SPEED / 3600, rel=0.01)
    assert number(hours_4b) == pytest.approx(2 * n_tokens / SPEED_4B / 3600, rel=0.03)


def test_so_do_machines_and_the_minutes_of_a_partition():
    hours, n_machines, n_cores, days = re.search(
        r"are (\d+) hours on (\d+) machines of (\d+) cores, and by the 4B (\d+) days", PAGE
    ).groups()
    cores = int(n_machines) * int(n_cores)
    billion = rows("| chunks of 128 tokens |")["1 billion"]
    assert int(hours) == round(number(billion[2]) / cores)
    assert int(days) == round(number(billion[3]) / cores / 24)
    n_bytes = float(re.search(r"`--partition-mb ([\d.]+)` of text, which is an hour of 2\s+cores", PAGE)[1]) * 1e6
    assert n_bytes / 4 / SPEED / 3600 == pytest.approx(1, rel=0.05)  # 4 bytes a token


def test_bytes_are_numbers_times_their_width():
    for dim, cells in rows("| dim | float32 |").items():
        for cell, width in zip(cells, (4, 2, 1, 1 / 8), strict=True):
            assert number(cell) == round(1e9 * number(dim) * width / 1e12, 2), dim


def test_many_workers_take_what_each_has_of_its_own_and_the_weights_once():
    own, shared = (number(rows("| processes |")["4"][place]) for place in (1, 2))
    own_text, rss, n, together, apart = re.search(
        r"costs (\d+) MB, not (\d+), and (\d+) workers take ([\d.]+) GB, not ([\d.]+)\.", PAGE
    ).groups()
    assert int(own_text) == own
    assert float(together) == round((int(n) * own + shared) / 1000, 1)
    assert float(apart) == round(int(n) * int(rss) / 1000, 1)


def test_the_commands_have_the_options_of_the_jobs(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "scripts" / "scale"))
    import plan

    known = {option for each in plan.job_options(lambda: None).__click_params__ for option in each.opts}
    for name in ("plan", "partitions"):
        sys.modules.pop(name)
    commands = re.findall(r"scripts/scale/\w+_job\.py (.*)$", PAGE, re.MULTILINE)
    assert len(commands) == 2
    for command in commands:
        assert {part for part in shlex.split(command) if part.startswith("-")} <= known
