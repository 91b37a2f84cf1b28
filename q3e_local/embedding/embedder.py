"""A model in this process: `Embedder`, which joins an engine, a prompt format, the defaults of a name and a cache.

Gets an Engine and imports none; knows nothing of files, terminals or HTTP. `TextStream.run` has the steps from a text
to its vector.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from q3e_local.cache import VectorCache
from q3e_local.embedding.engine import Engine
from q3e_local.embedding.preparing import Defaults, Preparation, ResolvedOptions, TextPreparation, resolve
from q3e_local.embedding.prompts import Prompts, normalizer
from q3e_local.embedding.request import Embedded, EmbedRequest
from q3e_local.embedding.stream import Progress, TextStream
from q3e_local.embedding.text_model import TextModel
from q3e_local.errors import TextError


class Embedder(TextModel):
    """A model that turns texts into embeddings. Safe to use from several threads; close it when done.

    `defaults` are what the model's name stands for, where a request says nothing. `loads_as` loads the model again
    where `model` does not. Vectors that the cache has are not computed; computed vectors are put into the cache.
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

    def resolve(self, request: EmbedRequest) -> ResolvedOptions:
        return resolve(request, self.engine, self.model, self.prompts, self.defaults)

    def prepare(self, request: EmbedRequest) -> Preparation:
        """What this request does to a text before this model decodes it. Raises OptionError."""
        return TextPreparation(self.engine, self.resolve(request))

    def normalized(self, text: str) -> str:
        """NFC as the reference tokenizer applies it."""
        return normalizer(self.engine.added_tokens)(text)

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        return [len(self.engine.tokenize(self.normalized(text))) + 1 for text in texts]

    def expect_counts(self, texts: Iterable[str]) -> None:
        """Do nothing: this process has the tokenizer."""

    def close(self) -> None:
        """Free the model, and close the cache."""
        self.engine.close()
        if self.cache is not None:
            self.cache.close()

    def _stream(
        self, request: EmbedRequest, resolved: ResolvedOptions, progress: Progress | None
    ) -> Iterator[Embedded | TextError]:
        preparation = TextPreparation(self.engine, resolved)
        return TextStream(self.engine, preparation, self.cache, progress).run(request.texts)
