"""Load a model for a command, pulling it first when it is missing.

The only place where a command downloads without being asked to. Says what it downloads, from where and how large that
is, even with --quiet.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from q3e_local.cli.again import again
from q3e_local.cli.computing.engines import apart
from q3e_local.cli.progress import bar, status
from q3e_local.cli.stopping import abandon, abandonable
from q3e_local.cli.terminal import say
from q3e_local.embedding.embedder import Embedder
from q3e_local.embedding.text_model import TextModel
from q3e_local.errors import ModelNotHereError, NotEnoughMemoryError, Q3EError
from q3e_local.gguf.model_kind import ModelKind
from q3e_local.models import installed
from q3e_local.models.card import ModelCard, ModelFile
from q3e_local.models.catalog import as_option, bundled
from q3e_local.models.download import origins
from q3e_local.models.download.origins import Source, is_offline
from q3e_local.models.installed import Installed, Located
from q3e_local.models.kinds import check_card
from q3e_local.models.names import Names, resolve
from q3e_local.reranking.rank_model import RankModel
from q3e_local.reranking.reranker import Reranker
from q3e_local.wording.counts import size

if TYPE_CHECKING:
    from q3e_local.models.pull import Step

T = TypeVar("T")
Computing = TypeVar("Computing", bound=TextModel | RankModel)


def load(model: str, offline: bool, quiet: bool, **options: Any) -> Embedder:
    """The library's `load`, after pulling what is missing. Raises what both raise."""
    import q3e_local

    return _loaded(lambda: q3e_local.load(model, engine=apart(options), **options), model, offline, quiet, "embedder")


def load_reranker(model: str, offline: bool, quiet: bool, **options: Any) -> Reranker:
    """The library's `load_reranker`, after pulling what is missing. Raises what both raise."""
    import q3e_local

    return _loaded(
        lambda: q3e_local.load_reranker(model, engine=apart(options), **options), model, offline, quiet, "reranker"
    )


def _loaded(load_it: Callable[[], T], model: str, offline: bool, quiet: bool, kind: ModelKind) -> T:
    def with_status() -> T:
        what = model
        with suppress(Q3EError, OSError):  # loading says why
            what = f"{model} ({size(resolve(model).located.path.stat().st_size)})"
        with status(f"loading {what}", quiet):
            return abandonable(load_it)

    return _pulling(with_status, model, offline, quiet, kind)


@contextmanager
def in_use(model: Computing) -> Iterator[Computing]:
    """Close a model when the block ends; after Ctrl-C without waiting for the batch that it computes."""
    close: Callable[[], object] = model.close
    try:
        yield model
    except KeyboardInterrupt:
        if isinstance(model, (Embedder, Reranker)):
            if model.cache is not None:
                model.cache.close()
            close = partial(abandon, model.engine.close)
        raise
    finally:
        close()


def locate(model: str, offline: bool, quiet: bool) -> Located:
    """The file of the model that `load` would load, after pulling what is missing. Raises what both raise."""
    return _pulling(lambda: resolve(model).located, model, offline, quiet)


def _pulling(use: Callable[[], T], model: str, offline: bool, quiet: bool, kind: ModelKind | None = None) -> T:
    """Return `use()`; where the model is not here, pull it first, unless its card is of another kind."""
    try:
        return use()
    except ModelNotHereError as error:
        card, file = Names().to_pull(model)
        if kind is not None:
            check_card(card, kind)
        if offline or is_offline():
            why = "--offline is given" if offline else "HF_HUB_OFFLINE is set"
            raise ModelNotHereError(f"{error}\nNothing is downloaded now, because {why}.") from None
        if file.is_converted:  # not by pulling; the error says how
            raise
    _check_memory(card, file)
    announce(card, file, "auto")
    pull_with_bar(card, file, "auto", offline=False, keep=False, quiet=quiet)
    return use()


def _check_memory(card: ModelCard, file: ModelFile) -> None:
    """Refuse to download, unasked, a model that this machine cannot run. Raises NotEnoughMemoryError."""
    from q3e_local.models import fitting

    short = fitting.shortage(card, file)
    if short is not None:
        way_out = f"only the demo model fits: {as_option(bundled(card.kind).name, card.kind)}"
        if short.instead is not None:
            way_out = f"take one that fits: {as_option(short.instead.name, card.kind)}, {short.instead.memory}"
        raise NotEnoughMemoryError(f"{short}; {way_out}; download it all the same: q3e-local pull {short.model.name}")


def pull_with_bar(
    card: ModelCard, file: ModelFile, source: Source, offline: bool, keep: bool, quiet: bool
) -> Installed:
    """Pull with a bar on stderr."""
    from q3e_local.models.pull import pull

    with bar(quiet) as show:
        other_way = "try --source hub" if source == "modelscope" else origins.mirror_advice()
        advice = f"\nCtrl-C ends, and the same command goes on from here; or {other_way}"

        def report(step: Step) -> None:
            nonlocal advice
            if not step.is_waiting:
                show(step.what, step.done, step.total)
            elif not quiet:
                say(f"{step.what}{advice}")
                advice = ""  # said once

        try:
            return pull(card, file, source=source, offline=offline, keep=keep, progress=report)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(f"what was downloaded is kept; go on with: {again()}") from None


def announce(card: ModelCard, file: ModelFile, source: Source) -> None:
    """Say which steps a pull takes, and warn where memory is too small. Says nothing if the model is here."""
    from q3e_local.models import fitting

    if file.is_converted or installed.find(card, file) is not None:
        return
    name, origin = card.tag(file.quantization), card.origin(file)
    if origin is None:
        say(f"Pulling {name}: {_download(file, source)}")
    elif (here := installed.find(card, origin)) is not None:
        say(f"Making {name}: quantizing {here.path} to {file.quantization}, about {size(file.size_bytes)}")
    else:
        say(f"Pulling {name}, in two steps:")
        say(f"  1. download {_download(origin, source)}")
        say(f"  2. quantize it here to {file.quantization}, about {size(file.size_bytes)}")
    short = fitting.shortage(card, file)
    if short is not None:
        smaller = short.instead
        say(f"{short}" if smaller is None else f"{short}; one that fits: {smaller.name}, {smaller.memory}")


def _download(file: ModelFile, source: Source) -> str:
    host = origins.origins(origins.pin(file), source)[0].host
    return f"{file.file}, {size(file.size_bytes)}, from {file.repo} on {host}"
