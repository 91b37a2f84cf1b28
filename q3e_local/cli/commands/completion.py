"""`q3e-local completion SHELL`: the script by which a shell completes commands, options, models and indexes.

click has the scripts for zsh, fish and PowerShell, and finds what may stand at a place. The script for bash is here,
because bash takes `qwen3-embedding:4b` for three words.
"""

from __future__ import annotations

import os
from typing import Any

import click
from click.shell_completion import (
    BashComplete,
    CompletionItem,
    FishComplete,
    PowerShellComplete,
    ShellComplete,
    ZshComplete,
    add_completion_class,
    split_arg_string,
)

from q3e_local.cli.candidates import COMPLETE_VARIABLE

# macOS has bash 3.2: no compopt, no `complete -o nosort`.
_BASH = """\
%(complete_func)s() {
    local IFS=$'\\n' line
    COMPREPLY=()
    for line in $(COMP_WORDS="${COMP_LINE:0:COMP_POINT}" COMP_CWORD="$2" %(complete_var)s=bash_complete "$1"); do
        case $line in
            plain,*) COMPREPLY+=("${line#plain,}") ;;
            dir,*) compopt -o filenames 2>/dev/null; COMPREPLY+=($(compgen -d -- "$2")) ;;
            file,*) compopt -o filenames 2>/dev/null; COMPREPLY+=($(compgen -f -- "$2")) ;;
        esac
    done
}
complete -o nosort -F %(complete_func)s %(prog_name)s 2>/dev/null ||
    complete -F %(complete_func)s %(prog_name)s
"""


class _WithOption(ShellComplete):
    """Answers `--model=qw` with `--model=qwen3-embedding:4b`: click's bare value would replace the option too."""

    def get_completions(self, args: list[str], incomplete: str) -> list[CompletionItem[str]]:
        option, is_given, _ = incomplete.partition("=")
        items = super().get_completions(args, incomplete)
        if not (is_given and option.startswith("--")):
            return items
        values = [item for item in items if item.type == "plain"]
        return [CompletionItem(f"{option}={item.value}", item.type, item.help) for item in values]


class Bash(_WithOption, BashComplete):
    """Leaves out of a value what bash takes for the words before its last one."""

    source_template = _BASH

    def source(self) -> str:
        return ShellComplete.source(self)  # without BashComplete's warning about bash before 4.4

    def get_completion_args(self) -> tuple[list[str], str]:
        line = os.environ["COMP_WORDS"]
        words = split_arg_string(line)[1:]
        is_new = not words or line[-1:].isspace()
        incomplete = "" if is_new else words.pop()
        last = os.environ["COMP_CWORD"]
        self._before_last = incomplete[: len(incomplete) - len(last)] if incomplete.endswith(last) else ""
        return words, incomplete

    def format_completion(self, item: CompletionItem[Any]) -> str:
        return f"{item.type},{str(item.value).removeprefix(self._before_last)}"


SHELLS: dict[str, type[ShellComplete]] = {
    "bash": Bash,
    "zsh": type("Zsh", (_WithOption, ZshComplete), {}),
    "fish": type("Fish", (_WithOption, FishComplete), {}),
    "powershell": type("PowerShell", (_WithOption, PowerShellComplete), {}),
}


def register() -> None:
    """Have click answer the shells with the classes of this module."""
    for name, shell in SHELLS.items():
        add_completion_class(shell, name)


@click.command()
@click.argument("shell", type=click.Choice(list(SHELLS)))
def completion(shell: str) -> None:
    """Print the script by which a shell completes commands, options, models and indexes. Once, in your shell:

    \b
      bash: echo 'eval "$(q3e-local completion bash)"' >> ~/.bashrc
      zsh: echo 'eval "$(q3e-local completion zsh)"' >> ~/.zshrc
      fish: q3e-local completion fish > ~/.config/fish/completions/q3e-local.fish
      powershell: q3e-local completion powershell >> $PROFILE

    Then open a new shell. In zsh the line stands behind compinit: autoload -Uz compinit && compinit.
    """
    program = click.get_current_context().find_root().command
    click.echo(SHELLS[shell](program, {}, "q3e-local", COMPLETE_VARIABLE).source(), nl=False)
