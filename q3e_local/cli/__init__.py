"""The command line: `q3e-local`.

Turns the library's errors into one sentence and an exit code: 0 done, 1 failure, 2 wrong usage, 3 some inputs
skipped, 130 interrupted. Commands are loaded when they are called, so that `--help` is quick.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections import UserDict
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import click

from q3e_local import __version__
from q3e_local.cli import plain_characters, stdout, terminal
from q3e_local.cli.again import ARGUMENTS
from q3e_local.cli.candidates import COMPLETE_VARIABLE
from q3e_local.cli.exit_codes import DONE, FAILED, INTERRUPTED, USAGE
from q3e_local.cli.stopping import is_work_left
from q3e_local.errors import OptionError, OutputError, Q3EError, UnknownModelError

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

# By what people want to do, as in the overview: name, module and function of the command, and the line that describes
# it, which stands here because the overview must not import every command.
_GROUPS = {
    "Embed and search": {
        "embed": ("commands.embed:embed", "Turn texts into embeddings."),
        "index": ("commands.index:index", "Index folders of files; list, show, rm, export, rebuild."),
        "search": ("commands.search:search", "Find what stands in the files of an index."),
        "rerank": ("commands.rerank:rerank", "Order documents by how well they answer a question."),
        "eval": ("commands.evaluate:eval_", "Measure how good search is on your own questions."),
    },
    "Jobs with texts": {
        "similar": ("jobs.similar:similar", "Compare texts: how near they are to each other."),
        "duplicates": ("jobs.duplicates:duplicates", "Find groups of texts that say nearly the same."),
        "cluster": ("jobs.cluster:cluster", "Part texts by theme, or a transcript into chapters."),
        "match": ("jobs.match:match", "Find each text's nearest in a list of phrases."),
        "filter-pairs": ("jobs.filter_pairs:filter_pairs", "Keep the rows of a CSV whose two texts agree."),
        "inspect": ("jobs.inspect:inspect", "Show what a vector is like, and the tokens of its text."),
        "plot": ("jobs.plot:plot", "Draw a map of texts."),
    },
    "Models": {
        "pull": ("commands.models:pull", "Download a model, or make it from a download."),
        "list": ("commands.models:list_", "List the models on this machine, or all there are."),
        "show": ("commands.show:show", "Show what a model's file says, and the memory it needs."),
        "rm": ("commands.models:rm", "Remove a model."),
        "import": ("commands.models:import_", "Take a model that is on this machine already."),
        "convert": ("commands.convert:convert", "Make a GGUF from a Hugging Face checkpoint."),
        "quantize": ("commands.convert:quantize", "Make a smaller GGUF from a larger one."),
        "verify": ("commands.verify:verify", "Check a model against what its authors published."),
    },
    "Serve": {
        "serve": ("commands.serve:serve", "Serve Ollama's and OpenAI's clients on this machine."),
        "ui": ("commands.ui:ui", "Open the server's page in the browser."),
        "mcp": ("commands.mcp:mcp", "Let an assistant search your indexes, over stdin and stdout."),
        "ps": ("commands.ps:ps", "List the models that a running server has loaded."),
        "stop": ("commands.ps:stop", "Unload a model from a running server."),
        "service": ("commands.service:service", "Start the server when you log in."),
    },
    "This machine": {
        "doctor": ("commands.doctor:doctor", "Look for what is wrong on this machine."),
        "bench": ("commands.bench:bench", "Measure how fast a model is on this machine."),
        "tune": ("commands.tune:tune", "Find the fastest settings for a model on this machine."),
        "cache": ("commands.cache:cache", "Show or forget the vectors and scores that are kept."),
        "completion": ("commands.completion:completion", "Print the script that completes commands in a shell."),
    },
}
_COMMANDS = {name: command for group in _GROUPS.values() for name, command in group.items()}


class _OnDemand(UserDict[str, Any]):
    """The commands by name, each of which is imported when it is looked up."""

    def __getitem__(self, name: str) -> click.Command:
        module, _, function = self.data[name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(f"q3e_local.cli.{module}"), function)
        return command


_START = """\
q3e-local: Qwen3-Embedding and Qwen3-Reranker on this machine, offline.

Start with:
  q3e-local embed --text "any text" -m demo   a first vector, nothing to pull
  q3e-local doctor                            what this machine can run
  q3e-local serve -m demo                     for clients of Ollama and OpenAI

demo is a small model for trying out, not for quality. For real work:
q3e-local pull qwen3-embedding:4b (2.5 GB, once), then leave -m demo out.
"""


class _Commands(click.Group):
    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As click's, but `help` and `help COMMAND` mean `--help`, as in git and ollama."""
        ctx.meta[ARGUMENTS] = tuple(args)  # click takes them out of the list
        return super().parse_args(ctx, [*args[1:], "--help"] if args[:1] == ["help"] else args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        width = max(map(len, _COMMANDS))
        for title, group in _GROUPS.items():
            with formatter.section(title):
                formatter.write_dl([(name.ljust(width), line) for name, (_, line) in group.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem[str]]:
        """As click's, which would load every command for its line."""
        from click.shell_completion import CompletionItem

        names = [
            CompletionItem(name, help=line) for name, (_, line) in _COMMANDS.items() if name.startswith(incomplete)
        ]
        return [*names, *click.Command.shell_complete(self, ctx, incomplete)]

    def main(self, *args: Any, **extra: Any) -> Any:
        """As click's, but it always exits, and turns our errors into exit codes."""
        extra["prog_name"] = extra.get("prog_name") or "q3e-local"
        extra["standalone_mode"] = False
        extra["windows_expand_args"] = False  # a text may hold $HOME and *; inputs expands patterns itself
        if COMPLETE_VARIABLE in os.environ:
            from q3e_local.cli.commands import completion

            completion.register()
        stdout.mark_own_errors()
        _tolerate_narrow_consoles()
        try:
            code = super().main(*args, **extra)
            stdout.flush()
        except BaseException as error:
            code = _exit_code(error)
            with suppress(stdout.ReaderGoneError, OutputError):  # the error above is the one to report
                stdout.flush()
        code = code if isinstance(code, int) else DONE
        if is_work_left():  # Python would wait for a batch, or a load, that Ctrl-C left behind
            os._exit(code)
        sys.exit(code)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as error:  # click would print an empty line
            raise _InterruptedError(str(error)) from None


def _exit_code(error: BaseException) -> int:
    """Tell the user about an error, and return its code. Raises an error that is a bug of ours."""
    if isinstance(error, stdout.ReaderGoneError):
        return DONE
    if isinstance(error, _InterruptedError):
        terminal.say_over(f"Interrupted: {error}" if str(error) else "Interrupted.")
        return INTERRUPTED
    if isinstance(error, click.Abort | KeyboardInterrupt):  # at a question, whose line has no end yet
        click.echo("\nInterrupted.", err=True)
        return INTERRUPTED
    if isinstance(error, click.ClickException):
        error.show()
        return error.exit_code
    if isinstance(error, Q3EError):
        click.echo(f"Error: {error}", err=True)
        return USAGE if isinstance(error, OptionError | UnknownModelError) else FAILED
    raise error


class _InterruptedError(Exception):
    """Ctrl-C; the text says what is kept, and how to go on."""


def _tolerate_narrow_consoles() -> None:
    """Have a console show a plain character in place of one that it cannot show, instead of failing."""
    plain_characters.register()
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors=plain_characters.ERRORS)


@click.group(
    cls=_Commands,
    commands=_OnDemand(_COMMANDS),
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(__version__, prog_name="q3e-local")
@click.pass_context
def main(ctx: click.Context) -> None:
    """Qwen3-Embedding and Qwen3-Reranker on this machine: right, fast, offline."""
    if ctx.invoked_subcommand is None:
        formatter = ctx.make_formatter()
        main.format_commands(ctx, formatter)
        click.echo(f"{_START}\n{formatter.getvalue()}\nOptions of a command: q3e-local COMMAND --help")
