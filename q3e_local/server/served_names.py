"""The names a server answers to, and whether its settings can work with them.

A name from a request never becomes a path: of files, only those the server was started with are reached, each by a
name that is made of the file's.
"""

from __future__ import annotations

from q3e_local.embedding.prompts import Prompts
from q3e_local.errors import ModelNotHereError, OptionError, Q3EError, UnknownModelError
from q3e_local.gguf.model_kind import ModelKind
from q3e_local.models import catalog, installed
from q3e_local.models.card import ModelCard, ModelFile
from q3e_local.models.catalog import DEFAULT_MODEL
from q3e_local.models.installed import Located
from q3e_local.models.kinds import DEFAULT_RERANKER
from q3e_local.models.names import Named, Names, served_as
from q3e_local.server.settings import ServerSettings
from q3e_local.wording.spelling import either

_SHOWN_AT_MOST = 20


class ServedNames:
    """Names for the clients of a server. Error messages name remedies that a client can use.

    Raises OptionError where two files it is started with would have the same name.
    """

    def __init__(self, settings: ServerSettings) -> None:
        self._models = [served_as(model) for model in settings.models]
        self._aliases = settings.aliases
        self._files: dict[str, Located] = {}
        for model, name in zip(settings.models, self._models, strict=True):
            path = installed.path_of(model)
            if path is not None:
                other = self._files.setdefault(name.lower(), Located(name, path, Prompts())).path
                if other != path:
                    raise OptionError(f"{other} and {path} would both be served as {name!r}; rename one of them")
        self._names = Names(settings.aliases, self._files)

    def resolve(self, name: str) -> Named:
        """What a client's name means.

        Raises UnknownModelError with the names there are, ModelNotHereError, ModelFileError, or OptionError for
        `-query` behind a name that is of queries already.
        """
        try:
            return self._names.resolve(name)
        except UnknownModelError:
            raise UnknownModelError(f"there is no model {name!r} here", f"there are {self._listed()}") from None
        except ModelNotHereError:
            card, file = self._names.to_pull(name)
            if file.is_converted:
                raise ModelNotHereError(card.to_convert(file)) from None
            tag = card.tag(file.quantization)
            raise ModelNotHereError(
                f"{tag} is not on this machine; bring it here with POST /api/pull, or q3e-local pull {tag}"
            ) from None

    def to_pull(self, name: str) -> tuple[ModelCard, ModelFile]:
        """The card and file that bring a client's name here. Raises UnknownModelError or OptionError."""
        try:
            return self._names.to_pull(name)
        except UnknownModelError:
            near = catalog.like(name, self._aliases)
            hint = f"did you mean {either(near)}?" if near else "q3e-local list --all shows those that can be pulled"
            raise UnknownModelError(f"there is no model {name!r}", hint) from None

    def check(self) -> list[str]:
        """A sentence for each name that does not work yet.

        Raises what resolving the models to start with raises, ModelFileError or WrongModelError for a file that
        cannot run, and OptionError for an alias that can never work.
        """
        doubts = self._names.check_aliases()
        for name in self._models:
            self._names.resolve(name).located.inspect()
        return doubts

    def _listed(self) -> str:
        """The names there are: files the server was started with, models, and the user's aliases."""
        files = [file.name for file in self._files.values()]
        models = [model.name for model in installed.installed()]
        names = list(dict.fromkeys([*files, *models, *self._aliases]))
        more = f" and {len(names) - _SHOWN_AT_MOST} more" if len(names) > _SHOWN_AT_MOST else ""
        return ", ".join(names[:_SHOWN_AT_MOST]) + more


def kind_of(name: str, settings: ServerSettings) -> ModelKind:
    """What the model of this name is. One that cannot be read counts as an embedder: using it says what is wrong."""
    try:
        return ServedNames(settings).resolve(name).located.inspect().kind
    except (Q3EError, OSError):
        return "embedder"


def to_try(settings: ServerSettings, kind: ModelKind = "embedder") -> str:
    """A name for an example: of a model to start with, the default one, or another that is here, of this kind.

    A model that the user pulled, imported or named comes before a model that another program put into the hub cache,
    and both before the one that comes with this program.
    """
    for name in map(served_as, settings.models):
        if kind_of(name, settings) == kind:
            return name
    default = DEFAULT_MODEL if kind == "embedder" else DEFAULT_RERANKER
    here = {m.name: m.origin for m in installed.installed() if kind_of(m.name, settings) == kind}
    by_user = [name for name, origin in here.items() if origin not in ("found", "bundled")]
    by_user += [name for name, alias in settings.aliases.items() if alias.model.lower() in here]
    by_others = [name for name, origin in here.items() if origin == "found"]
    for names in (by_user, by_others):
        if names:
            return default if default in names else names[0]
    return catalog.bundled(kind).name
