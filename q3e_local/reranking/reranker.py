"""A reranker in this process: `Reranker`, which joins an engine, a prompt format and a cache.

Gets an Engine and imports none; knows nothing of files, terminals or HTTP. Documents take the way of texts, which
`TextStream.run` has; what comes back is a logit instead of a vector.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from q3e_local.cache import VectorCache
from q3e_local.embedding.engine import Engine
from q3e_local.embedding.preparing import Defaults
from q3e_local.embedding.stream import Progress, TextStream
from q3e_local.errors import TextError
from q3e_local.reranking.preparing import PairPreparation, RankRequest, resolve
from q3e_local.reranking.prompts import RerankPrompts
from q3e_local.reranking.rank_model import Ranked, RankModel, probability


class Reranker(RankModel):
    """A model that reads a question and a document together. Safe to use from several threads; close it when done.

    Pairs that the cache has are not computed; computed pairs are put into the cache.
    """

    def __init__(
        self,
        engine: Engine,
        model: str,
        prompts: RerankPrompts = RerankPrompts(),  # noqa: B008 (frozen)
        cache: VectorCache | None = None,
        defaults: Defaults = Defaults(),  # noqa: B008 (frozen)
    ) -> None:
        """`defaults` are what the model's name stands for, where a request says no task and no instruction."""
        self.engine, self.model, self.prompts, self.cache = engine, model, prompts, cache
        self.defaults = defaults

    def __repr__(self) -> str:
        return f"<Reranker {self.model}: question and document of up to {self.engine.n_ctx_max:,} tokens>"

    def prepare(self, request: RankRequest) -> PairPreparation:
        """What this request does to a document before this model decodes it. Raises OptionError."""
        request = request.filled(self.defaults)
        resolved = resolve(request, self.engine, self.model, self.prompts)
        return PairPreparation(self.engine, resolved, request.max_document_tokens)

    def close(self) -> None:
        """Free the model, and close the cache."""
        self.engine.close()
        if self.cache is not None:
            self.cache.close()

    def _stream(self, request: RankRequest, progress: Progress | None) -> Iterator[Ranked | TextError]:
        preparation = self.prepare(request)
        return self._ranked(TextStream(self.engine, preparation, self.cache, progress), request.documents)

    @staticmethod
    def _ranked(stream: TextStream, documents: Iterable[str]) -> Iterator[Ranked | TextError]:
        for index, item in enumerate(stream.run(documents)):
            if isinstance(item, TextError):
                yield item
                continue
            logit = float(item.vector[0])
            yield Ranked(index, probability(logit), logit, item.truncated, item.prompt_tokens)
