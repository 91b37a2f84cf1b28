"""What a new user meets: the program's name alone, mistyped names, and the help of a command."""

from __future__ import annotations

import re
import shlex

import click
import pytest
from command import run, write

from q3e_local.cli import main
from q3e_local.cli.computing.engine_options import ENGINE_PARAMETERS

ENGINE_SECTION = "How the model runs (chosen for this machine if not given):"


def commands(group: click.Group = main, above: tuple[str, ...] = ()) -> dict[tuple[str, ...], click.Command]:
    """Every command and subcommand by its words."""
    context, found = click.Context(group), {}
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        found[*above, name] = command
        if isinstance(command, click.Group):
            found |= commands(command, (*above, name))
    return found


# The name alone


def test_the_name_alone_says_what_to_start_with() -> None:
    lines = run().stdout.splitlines()
    assert lines[0].startswith("q3e-local: Qwen3-Embedding and Qwen3-Reranker on this machine")
    assert lines[2] == "Start with:"
    assert max(map(len, lines)) < 80


def test_what_it_says_to_start_with_works_on_a_machine_with_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("Q3E_HOME", str(tmp_path / "q3e"))
    lines = run().stdout.splitlines()
    starts = [re.split(r"\s{2,}", line.strip())[0] for line in lines if line.startswith("  q3e-local ")]
    assert len(starts) == 3
    for start in starts:
        program, *arguments = shlex.split(start)
        assert program == "q3e-local"
        if arguments[0] == "serve":  # would not end
            arguments.append("--help")
        assert run(*arguments).exit_code == 0, start
    (named,) = [line for line in lines if line.startswith("q3e-local pull ")]
    assert "qwen3-embedding:4b (2.5 GB" in named


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]])
def test_the_overview_has_every_command_in_groups(arguments: list[str]) -> None:
    result = run(*arguments)
    assert (result.exit_code, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    for name in main.list_commands(click.Context(main)):
        assert [line for line in lines if line.startswith(f"  {name} ")], name
    titles = [line for line in lines if re.fullmatch(r"[A-Z][a-z ]+:", line)]
    assert titles[-5:] == ["Embed and search:", "Jobs with texts:", "Models:", "Serve:", "This machine:"]


# Mistyped


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("embeed", "'embed'"),
        ("serach -k 3", "'search'"),
        ("cache stat", "'stats'"),
        ("index lst", "'list'"),
        ("index rebiuld work -m demo", "'rebuild'"),
        ("service instal", "'install'"),
        ("embed --dimension 3", "'--dimensions'"),
        ("search --hybird a", "'--hybrid'"),
        ("pull demo --quite", "'--quiet'"),
    ],
)
def test_a_mistyped_name_is_answered_with_the_name_that_was_meant(typed: str, meant: str) -> None:
    result = run(*typed.split())
    assert (result.exit_code, result.stdout) == (2, "")
    assert re.search(rf"Did you mean (one of: .*)?{meant}", result.stderr)


def test_a_folder_that_is_there_is_no_mistyped_command(tmp_path, monkeypatch):
    monkeypatch.setenv("Q3E_HOME", str(tmp_path / "q3e"))
    write(tmp_path, {"lists/a.txt": "a text"})
    assert "Did you mean" in run("index", "listz", "-m", "demo").stderr
    assert run("index", "lists", "-m", "demo").exit_code == 0
    assert run("index", "nowhere", "-m", "demo").stderr.startswith("Error: there is no folder or file ")


# The help of a command


@pytest.mark.parametrize("words", commands())
def test_the_settings_of_the_machine_stand_in_a_group_behind_a_commands_own(words, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    command = commands()[words]
    result = run(*words, "--help")
    assert (result.exit_code, result.stderr) == (0, "")
    assert run(*words, "-h").stdout == result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 80
    own_section, _, of_engine = result.stdout.partition(ENGINE_SECTION)
    engine_options = [option for option in command.params if option.name in ENGINE_PARAMETERS]
    assert bool(of_engine) == bool(engine_options) or words == ("index",)
    assert re.match(r"(?s).*\nOptions:\n  -", own_section), "an argument stands in the usage, not among the options"
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, parameter.opts
            wanted, other = (of_engine, own_section) if parameter in engine_options else (own_section, of_engine)
            assert re.search(rf"^  .*{re.escape(parameter.opts[-1])}\b", wanted, re.M), parameter.opts
            assert not re.search(rf"^  {re.escape(parameter.opts[-1])}\b", other, re.M), parameter.opts


def test_index_shows_its_options_then_its_commands_then_the_machines() -> None:
    text = run("index", "--help").stdout
    parts = ("\nOptions:", "\n  --db", "\nCommands:", "\n  rebuild", ENGINE_SECTION, "\n  --threads")
    places = [text.index(part) for part in parts]
    assert places == sorted(places)


@pytest.mark.parametrize("arguments", [("help",), ("help", "embed"), ("help", "index", "list")])
def test_help_is_a_word_too(arguments):
    assert run(*arguments).output == run(*arguments[1:], "--help").output != ""
