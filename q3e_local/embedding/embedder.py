"""Texts to embeddings, end to end: normalize, prompt, tokenize, fit, pack, decode, cut and scale.

Is handed an Engine and imports none; knows nothing of files, terminals or HTTP.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from q3e_local.cache import VectorCache
from q3e_local.cache.shelf import Shelf
from q3e_local.embedding.batching import N_PREFIX_MIN, common, fit
from q3e_local.embedding.engine import Engine
from q3e_local.embedding.lookup import Lookup
from q3e_local.embedding.prompts import Prompts, normalizer
from q3e_local.embedding.request import DIM_MIN, Defaults, Embedded, EmbedRequest, Fitted, Terms, meant
from q3e_local.embedding.stream import Progress, TextStream
from q3e_local.embedding.text_model import TextModel
from q3e_local.errors import InvalidTextError, OptionError, TextError, TextTooLongError
from q3e_local.space import Space


class Embedder(TextModel):
    """A model that turns texts into embeddings. Safe to use from several threads; close it when done.

    `defaults` are what the name it was loaded under asks for, where a request says nothing. `loads_as` is what loads
    the model again where its name does not.
    What a cache has is not computed, and what is computed is put there.
    """

    def __init__(
        self,
        engine: Engine,
        model: str,
        prompts: Prompts = Prompts(),  # noqa: B008 (frozen)
        defaults: Defaults = Defaults(),  # noqa: B008 (frozen)
        cache: VectorCache | None = None,
        loads_as: str | None = None,
    ) -> None:
        self.engine = engine
        self.model = model
        self.prompts = prompts
        self.defaults = defaults
        self.cache = cache
        self._loads_as = loads_as
        self._normalize = normalizer(engine.added_tokens)

    @property
    def loads_as(self) -> str:
        return self._loads_as or self.model

    @property
    def n_embd(self) -> int:
        return self.engine.n_embd

    @property
    def n_ctx_max(self) -> int:
        return self.engine.n_ctx_max

    @property
    def digest(self) -> str:
        return self.engine.digest

    def __repr__(self) -> str:
        engine = self.engine
        return f"<Embedder {self.model}: dim {engine.n_embd}, texts of up to {engine.n_ctx_max:,} tokens>"

    def stream(self, request: EmbedRequest, progress: Progress | None = None) -> Iterator[Embedded | TextError]:
        """One item for each text, in order, as they are done; a text that cannot be embedded is its TextError.

        Reads `texts` a window at a time, so memory stays the same however many there are. Raises OptionError at
        once.
        """
        self.check(request)
        terms = self.terms(request)
        prefix_ids = self.engine.tokenize(self.readied("", 0, terms)) if terms.prefix else []

        def ready(text: str, index: int) -> str:
            return self.readied(text, index, terms)

        def fit(text: str, index: int) -> Fitted:
            return self.fitted(self.engine.tokenize(text), index, terms, prefix_ids)

        shelf = None
        if self.cache is not None:
            shelf = Shelf(self.cache, self.full_space(terms), terms.limit, terms.truncate)
        lookup = Lookup(ready, terms.dim, shelf)
        return TextStream(self.engine, lookup, terms.dim, fit, progress).run(request.texts)

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        return [len(self.engine.tokenize(self.normalized(text))) + 1 for text in texts]

    def expect_counts(self, texts: Iterable[str]) -> None:
        """Do nothing: the tokenizer is in this process."""

    def terms(self, request: EmbedRequest) -> Terms:
        """The request's options for this model. Raises OptionError."""
        dim, limit = self._dim(request), self._limit(request)
        asked = meant(request, self.defaults)
        assert asked.kind is not None  # what says nothing was filled in
        prefix = self.prompts.prefix(asked.kind, asked.task, asked.instruction)
        space = str(Space(self.engine.digest, dim, prefix))
        return Terms(prefix, dim, limit, request.truncate, space)

    def full_space(self, terms: Terms) -> Space:
        """The space of such a request at the model's own dim, which all smaller ones are cut from."""
        return Space(self.engine.digest, self.n_embd, terms.prefix)

    def readied(self, text: str, index: int, terms: Terms) -> str:
        """The text as it is tokenized: prompted and normalized. Raises InvalidTextError."""
        self.check_text(text, index)
        return self.normalized(terms.prefix + text)

    def check_text(self, text: str, index: int) -> None:
        """Raise InvalidTextError for what is no text."""
        if not isinstance(text, str):
            raise InvalidTextError(f"a text must be a str, got {type(text).__name__}", index)
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise InvalidTextError(
                f"character {error.start} is the lone surrogate {text[error.start]!r}, which is no text", index
            ) from None

    def normalized(self, text: str) -> str:
        """NFC as the reference tokenizer applies it."""
        return self._normalize(text)

    def fitted(self, ids: list[int], index: int, terms: Terms, prefix_ids: Sequence[int] = ()) -> Fitted:
        """Ids without an end token as they are decoded; `prefix_ids` are those of the instruction alone.

        Raises TextTooLongError where cutting was not asked for.
        """
        fitted, truncated = fit(ids, terms.limit, self.engine.eos_id)
        if truncated and not terms.truncate:
            raise TextTooLongError(
                f"has {len(ids) + 1} tokens, the limit is {terms.limit}; truncate it or split it", index
            )
        # subtle: the instruction's last token may take in the beginning of the text, as ":" does with a letter.
        n_prefix = common(fitted, prefix_ids)
        return Fitted(fitted, truncated, n_prefix if n_prefix >= N_PREFIX_MIN else 0)

    def close(self) -> None:
        """Free the model, and close the cache."""
        self.engine.close()
        if self.cache is not None:
            self.cache.close()

    def _dim(self, request: EmbedRequest) -> int:
        dim = self.defaults.dim if request.dim is None else request.dim
        if dim is None:
            return self.n_embd
        if type(dim) is not int or not DIM_MIN <= dim <= self.n_embd:
            # It may be the name's own, which is no option of whoever asks.
            what, option = ("the name's dim", "") if request.dim is None else ("dim", "dim")
            limits = f"between {DIM_MIN} and {self.n_embd} for {self.model}"
            raise OptionError(f"{what} must be {limits}, got {dim!r}", option)
        return dim

    def _limit(self, request: EmbedRequest) -> int:
        if request.max_tokens is None:
            return self.engine.n_ctx_max
        limit = self.engine.n_ctx_max
        if type(request.max_tokens) is not int or not 1 <= request.max_tokens <= limit:
            raise OptionError(
                f"max_tokens must be between 1 and {limit} for {self.model}, got {request.max_tokens!r}", "max_tokens"
            )
        return request.max_tokens
