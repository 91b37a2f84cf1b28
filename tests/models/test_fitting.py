"""Whether a model fits this machine's memory: said before it is downloaded, with the size that does."""

from __future__ import annotations

import pytest
from command import failed, run
from world import Q8_0

from q3e_local import machine
from q3e_local.embedding.engine import EngineConfig
from q3e_local.gguf.model_file import inspect
from q3e_local.llama.settings.defaults import Host, settle
from q3e_local.llama.settings.memory import as_asked, needed_bytes
from q3e_local.models import catalog, fitting

SIZES = ["qwen3-embedding:0.6b", "qwen3-embedding:4b", "qwen3-embedding:8b"]


def memory(monkeypatch: pytest.MonkeyPatch, n_bytes: float) -> None:
    monkeypatch.setattr(machine, "usable_memory", lambda: int(n_bytes))


# Peak memory that was measured with full-size weights of these shapes, texts of 128 tokens: docs/performance.md.
@pytest.mark.parametrize(("name", "measured"), [("qwen3-embedding:0.6b", 0.63e9), ("qwen3-embedding:4b", 2.81e9)])
def test_the_estimate_is_what_was_measured(name, measured):
    card, file = catalog.resolve(name)
    assert measured <= fitting.needed_bytes(card, file.size_bytes) <= 1.05 * measured


def test_a_card_is_never_below_what_its_file_says(tiny_gguf, world):
    """Cards state no widths: what stands for them is an upper bound."""
    card, _ = catalog.resolve("tiny:1b-q8_0")
    info, config = inspect(world.q8_0), EngineConfig()
    of_file = needed_bytes(info, as_asked(config, settle(config, Host(1), None).n_batch))
    assert of_file <= fitting.needed_bytes(card, info.size_bytes) <= 1.5 * of_file


@pytest.mark.parametrize(
    ("usable", "advised"), [(16e9, SIZES[1]), (2.9e9, SIZES[1]), (2.8e9, SIZES[0]), (0.7e9, SIZES[0]), (0.5e9, None)]
)
def test_the_default_model_is_advised_or_the_largest_that_fits(monkeypatch, usable, advised):
    memory(monkeypatch, usable)
    model = fitting.recommended()
    assert (model and model.name) == advised


@pytest.mark.parametrize(
    ("name", "usable", "instead"),
    [
        (SIZES[2], 16e9, "fits"),
        (SIZES[2], 4e9, SIZES[1]),
        (SIZES[2], 2e9, SIZES[0]),
        ("qwen3-embedding:4b-q8_0", 4e9, SIZES[1]),
        (SIZES[0], 0.5e9, None),
        ("demo", 0.5e9, "fits"),
    ],
)
def test_a_shortage_names_the_largest_that_fits(monkeypatch, name, usable, instead):
    memory(monkeypatch, usable)
    short = fitting.shortage(*catalog.resolve(name))
    got = "fits" if short is None else short.instead and short.instead.name
    assert got == instead


# What a user meets


@pytest.mark.parametrize(
    "command", [["embed", "--text", "one"], ["bench", "--seconds", "0"], ["tune"], ["index", "."], ["verify"]]
)
def test_a_command_downloads_no_model_unasked_that_cannot_run(world, monkeypatch, tmp_path, command):
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "a.txt").write_text("one")
    monkeypatch.chdir(tmp_path / "files")
    memory(monkeypatch, 2e9)
    result = run(*command)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == (
        "Error: qwen3-embedding:4b needs about 2.8 GB of memory to run, and this machine has 2.0 GB for programs; "
        "take one that fits: -m qwen3-embedding:0.6b, about 0.6 GB; download it all the same: q3e-local pull "
        "qwen3-embedding:4b\n"
    )
    assert world.hub.requests == []


def test_a_pull_that_was_asked_for_says_so_and_goes_on(world, monkeypatch):
    """People pull for other machines too."""
    memory(monkeypatch, 10e6)
    result = run("pull", "tiny:1b-q8_0")
    assert result.exit_code == 0
    announced, doubt = result.stderr.splitlines()
    assert announced.startswith("Pulling tiny:1b-q8_0: ")
    assert doubt == ("tiny:1b-q8_0 needs about 0.1 GB of memory to run, and this machine has 0.0 GB for programs")
    assert world.requests() == [Q8_0]
    # It is here now, and nobody says it again.
    assert run("pull", "tiny:1b-q8_0").stderr == ""


def test_a_model_that_is_here_is_not_judged_by_this(world, monkeypatch):
    run("pull", "tiny:1b-q8_0")
    memory(monkeypatch, 10e6)
    assert run("embed", "-m", "tiny:1b-q8_0", "--text", "a").exit_code == 0


@pytest.mark.parametrize("command", [["embed", "--text", "a"], ["similar", "a", "b"], ["index", "."]])
@pytest.mark.parametrize("dim", ["16", "257"])
def test_a_dim_that_the_model_does_not_have_is_refused_before_it_is_downloaded(
    world, monkeypatch, tmp_path, command, dim
):
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "a.txt").write_text("one")
    monkeypatch.chdir(tmp_path / "files")
    stderr = failed(*command, "-m", "tiny:1b-q8_0", "-d", dim, code=2)
    assert stderr == f"Error: --dimensions must be between 32 and 256 for tiny:1b-q8_0, got {dim}\n"
    assert world.hub.requests == []
