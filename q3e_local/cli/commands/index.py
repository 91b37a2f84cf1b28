"""`q3e-local index FOLDER...`: bring folders into an index; and the group of all commands about indexes."""

from __future__ import annotations

import os
import time
from collections import defaultdict
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import click

from q3e_local.cli.again import again
from q3e_local.cli.commands import index_export, index_files
from q3e_local.cli.commands.index_options import Loaded, advice_for, model_of_index, say_waiting, which_index
from q3e_local.cli.computing.engine_options import ModelCommand, engine_options
from q3e_local.cli.computing.model_options import ModelOptions, loading_options
from q3e_local.cli.exit_codes import DONE, SKIPPED
from q3e_local.cli.option_groups import as_one
from q3e_local.cli.progress import meter
from q3e_local.cli.stopping import between_batches, stopping_cleanly
from q3e_local.cli.terminal import say, say_over
from q3e_local.cli.writing.show import from_here, print_json, visible
from q3e_local.errors import InputError, OptionError, Q3EError
from q3e_local.search.places import files_of, locate
from q3e_local.wording.counts import counted, size

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from q3e_local.reading import Skipped
    from q3e_local.search.indexing.tally import Tally

_NAMED_AT_MOST = 3  # skipped files of each reason
_FOLDERS = "folders"


class _FoldersOrCommand(click.Group):
    """`index notes/` is `index folders notes/`; a folder that has a command's name is `./list`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0] not in {*self.commands, *ctx.help_option_names}:
            self._check_is_no_mistyped_command(args[0], ctx)
            args = [_FOLDERS, *args]
        return super().parse_args(ctx, args)

    def _check_is_no_mistyped_command(self, name: str, ctx: click.Context) -> None:
        if name.startswith("-") or ctx.resilient_parsing or os.path.lexists(name):
            return
        commands = [command for command in self.commands if command != _FOLDERS]
        error = click.NoSuchCommand(name, f"There is no folder and no command {name!r}.", commands, ctx)
        if error.possibilities:
            raise error

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem[str]]:
        """A command or a folder, or an option of `index FOLDER`."""
        from click.shell_completion import CompletionItem

        folders = self.commands[_FOLDERS]
        if incomplete.startswith("-"):
            return folders.shell_complete(click.Context(folders, parent=ctx), incomplete)
        return [*super().shell_complete(ctx, incomplete), CompletionItem(incomplete, type="file")]

    def format_usage(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        formatter.write_usage(ctx.command_path, "FOLDER... [OPTIONS]")
        formatter.write_usage(ctx.command_path, "COMMAND [OPTIONS]")

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        folders = self.commands[_FOLDERS]
        assert isinstance(folders, ModelCommand)
        folders.format_own_options(ctx, formatter)
        self.format_commands(ctx, formatter)
        folders.format_engine_options(ctx, formatter)


@click.group(cls=_FoldersOrCommand)
def index() -> None:
    """Index folders, so that `search` finds what stands in their files.

    Text, Markdown, reStructuredText, HTML, PDF, DOCX, PPTX, XLSX, ODT, RTF, EPUB, mails, notebooks, CSV, JSON Lines
    and source code; with LibreOffice also DOC, WPS, PPT and XLS. Only what changed since the last time is embedded
    again, what was deleted goes. Interrupted at any point, the next run goes on. A file may be named too; a folder
    that has a command's name is ./list.

    \b
      q3e-local index notes papers
      q3e-local index notes --db notes.q3e --glob '*.md' --watch
      q3e-local index list
    """


for command in (index_files.list_, index_files.show, index_files.rm, index_export.export, index_files.rebuild):
    index.add_command(command)


@index.command(_FOLDERS, cls=ModelCommand, hidden=True)
@click.argument("folders", nargs=-1, type=click.Path(path_type=Path), metavar="FOLDER...")
@which_index
@model_of_index
@click.option(
    "--glob", "globs", multiple=True, metavar="PATTERN", help="Only such files, as '*.md'; may be repeated."
)
@click.option(
    "--chunk-tokens", type=click.IntRange(32),
    help="Tokens in a chunk at most, its headings included. [default: as the index has it, or 256]",
)  # fmt: skip
@click.option("--watch", is_flag=True, help="Go on, and index what changes, until Ctrl-C.")
@loading_options
@engine_options
@click.option("--json", "as_json", is_flag=True, help="The summary as a JSON object on stdout.")
@click.option("--verbose", is_flag=True, help="Name every file that was skipped.")
@click.option("-q", "--quiet", is_flag=True, help="Nothing but errors.")
@as_one(ModelOptions, "options")
def folders(
    folders: tuple[Path, ...], db: Path | None, name: str | None, globs: tuple[str, ...], chunk_tokens: int | None,
    watch: bool, as_json: bool, verbose: bool, options: ModelOptions,
) -> int:  # fmt: skip
    """Bring an index up to date with folders, or make it."""
    path = locate(db, name)
    if not folders:
        raise OptionError("name a folder, as in: q3e-local index notes; or a command, as in: q3e-local index list")
    loaded = Loaded(options)
    run = _Run(path, folders, globs, chunk_tokens, loaded, as_json, verbose, options.quiet)
    with stopping_cleanly(), advice_for(options.servers), loaded:
        return run.watching() if watch else run.once()


@dataclass
class _Run:
    """What is done once, or each time that something changed."""

    path: Path
    folders: tuple[Path, ...]
    globs: tuple[str, ...]
    chunk_tokens: int | None
    loaded: Loaded
    as_json: bool
    verbose: bool
    quiet: bool
    named: set[Skipped] = field(default_factory=set)  # files that an earlier run of --watch said it skipped

    def once(self, *, is_again: bool = False) -> int:
        """Index, and say what was done; the exit code."""
        from q3e_local.search.indexing.tally import Tally

        tally = Tally()
        try:
            seconds = self._index(tally, must_load=self.loaded.is_chosen and not is_again)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(_kept(tally)) from None
        except Q3EError:
            if not self.quiet and tally.n_new + tally.n_changed:
                say(_kept(tally))
            raise
        skipped = [file for file in tally.skipped if file not in self.named]
        self.named.update(tally.skipped)
        if is_again and not (tally.n_new + tally.n_changed + tally.n_removed + len(skipped) + len(tally.missing)):
            return DONE
        if self.as_json:
            self._print_json(tally, seconds)
        if self.quiet:
            self._say_skipped(skipped)
        else:
            self._report(tally, seconds, skipped)
        if tally.missing:
            raise InputError("\n".join(tally.missing))
        return SKIPPED if tally.n_faults else DONE

    def watching(self) -> int:
        """Index each time that something changed, until Ctrl-C ends it; the exit code."""
        from q3e_local.search.indexing.watch import watched

        is_again = False
        try:
            for _ in watched(self.folders, files_of(self.path)):
                try:
                    self.once(is_again=is_again)
                except InputError as error:
                    if not is_again:
                        raise
                    say(f"Error: {error}")  # a folder that is gone may come back
                if not is_again and not self.quiet:
                    say("watching for changes; Ctrl-C ends")
                is_again = True
        except KeyboardInterrupt as error:
            if not self.quiet:
                say_over(str(error) or "no longer watching")
        return DONE

    def _index(self, tally: Tally, *, must_load: bool) -> float:
        """Index, and return how many seconds that took, without loading the model."""
        from q3e_local.search.indexing.folders import index_folders

        with ExitStack() as stack:
            embedding = _Embedding(tally, stack, self.quiet)
            index_folders(
                self.path, self.folders, self.loaded, tally, globs=self.globs, chunk_tokens=self.chunk_tokens,
                must_load=must_load, on_wait=lambda: say_waiting(self.path), on_start=embedding.begin,
                on_file=embedding.on_file, on_batch=embedding.on_batch, progress=embedding.progress,
            )  # fmt: skip
            return time.perf_counter() - embedding.began

    def _print_json(self, tally: Tally, seconds: float) -> None:
        fields = {name.removeprefix("n_"): value for name, value in asdict(tally).items()}
        skipped = [
            {"file": _utf8(file.path), "reason": file.reason, "expected": file.is_expected} for file in tally.skipped
        ]
        read_as = {encoding: [_utf8(path) for path in paths] for encoding, paths in tally.read_as.items()}
        facts = {"seconds": round(seconds, 3), "skipped": skipped, "read_as": read_as}
        print_json({"index": _utf8(self.path), **fields, **facts})

    def _report(self, tally: Tally, seconds: float, skipped: list[Skipped]) -> None:
        counts = {what: getattr(tally, f"n_{what}") for what in ("new", "changed", "unchanged", "removed")}
        say(f"files: {', '.join(f'{n:,} {what}' for what, n in counts.items() if n) or 'none'}")
        if not (sum(counts.values()) + len(tally.skipped) + len(tally.missing)):
            patterns = " or ".join(f"--glob {glob!r}" for glob in self.globs)
            where = ", ".join(visible(from_here(str(folder))) for folder in self.folders)
            say(f"no file matches {patterns} in {where}" if patterns else f"there is no file to read in {where}")
        for encoding, paths in tally.read_as.items():
            names = [visible(from_here(str(path))) for path in paths]
            say(f"read as {encoding}, not UTF-8: {self._some(names)}; where that is wrong, save it as UTF-8")
        for note in tally.notes:
            say(note)
        if tally.n_chunks:
            reused = f" ({tally.n_reused:,} had their vectors)" if tally.n_reused else ""
            rate = f" in {seconds:.1f} s: {tally.n_tokens / seconds:,.0f} tokens/s" if tally.n_tokens else ""
            say(f"chunks: {tally.n_chunks:,}{reused}, {tally.n_tokens:,} tokens{rate}")
        self._say_skipped(skipped)
        if tally.n_left_out:
            singular, plural = "file was left out and stays as it was", "files were left out and stay as they were"
            say(counted(tally.n_left_out, singular, plural))
        facts = index_files.facts_of(self.path)
        holds = f"{counted(facts.n_files, 'file')}, {counted(facts.n_chunks, 'chunk')}"
        say(f"{self.path} holds {holds}: {facts.space}, {size(facts.size_bytes)}")

    def _say_skipped(self, skipped: list[Skipped]) -> None:
        """Say which files could not be read and why; of files without text say how many, or all with --verbose."""
        by_reason: dict[str, list[str]] = defaultdict(list)
        n_expected = 0
        for file in sorted(skipped, key=lambda file: file.is_expected):
            if file.is_expected and (self.quiet or not self.verbose):
                n_expected += 1
            else:
                by_reason[file.reason].append(visible(from_here(str(file.path))))
        for reason, names in by_reason.items():
            say(f"skipped {len(names):,}: {visible(reason)}: {self._some(names)}")
        if n_expected and not self.quiet:
            say(f"passed over {counted(n_expected, 'file')} that no text was expected in (--verbose)")

    def _some(self, names: list[str]) -> str:
        """Names in a row; the first few of many, but with --verbose all."""
        named = names if self.verbose else names[:_NAMED_AT_MOST]
        more = f" and {len(names) - len(named):,} more (--verbose)" if len(names) > len(named) else ""
        return ", ".join(named) + more


class _Embedding:
    """The embedding of files: shows how far it is, and lets Ctrl-C stop it between two batches."""

    def __init__(self, tally: Tally, stack: ExitStack, quiet: bool) -> None:
        self._tally, self._stack, self._quiet = tally, stack, quiet
        self._n_files = self._n_bytes = self._n_tokens = 0
        self.began = time.perf_counter()

    def begin(self, n_files: int, n_bytes: int) -> None:
        self.began = time.perf_counter()  # again, once the model is loaded
        self._show = self._stack.enter_context(meter("file", n_files, n_bytes, self._quiet))
        self._batches = self._stack.enter_context(between_batches())

    def on_file(self, path: Path) -> None:
        self._batches.check()

    def on_batch(self, n_chunks: int, n_tokens: int) -> None:
        self._show.computed(n_chunks, n_tokens)
        self._batches.check()

    def progress(self, n_bytes: int, n_chunks: int, n_tokens: int) -> None:
        n_files = self._tally.n_new + self._tally.n_changed
        self._show.kept(n_bytes - self._n_bytes, n_tokens - self._n_tokens, n_files - self._n_files)
        self._n_files, self._n_bytes, self._n_tokens = n_files, n_bytes, n_tokens


def _kept(tally: Tally) -> str:
    """What a run that ended early has stored, and the command that goes on."""
    n_done = tally.n_new + tally.n_changed
    if not n_done:
        return f"no file is done yet; begin again with: {again()}"
    return f"{counted(n_done, 'file is', 'files are')} done and kept; go on with the others by: {again()}"


def _utf8(path: Path) -> str:
    """A path for JSON, with ? in place of bytes that are no text."""
    return str(path).encode("utf-8", "replace").decode("utf-8")
