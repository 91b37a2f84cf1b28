"""The vectors that columns are cut from: each text once for a model, at its native dim, and how long that takes.

Resuming is the cache's work: a vector that it has is not computed. Knows models; nothing of labels and measures.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import median

import numpy as np

from q3e_local.embedding.embedder import Embedder
from q3e_local.embedding.request import EmbedRequest
from q3e_local.embedding.text_model import TextModel
from q3e_local.errors import InputError, TextError
from q3e_local.evaluation.columns import Column, documents
from q3e_local.evaluation.passages import Passages
from q3e_local.vectors import Vectors
from q3e_local.wording.counts import counted

Progress = Callable[[str, int, int, int], None]
"""Called as `progress(what, n_done, n_total, n_cached)`: first with 0 done, and at last with all.

`what` says what is being done, and `n_cached` how many of those that are done the cache had.
"""

_TIMED = 5  # texts that are embedded one by one to see how long one takes


@dataclass(frozen=True)
class Names:
    """What errors and progress call texts: `what` in the singular, and the name of each."""

    what: str
    names: Sequence[str]


class ModelVectors:
    """Vectors of one model. `notes` say which texts were cut to its limit."""

    def __init__(self, model: TextModel, progress: Progress) -> None:
        self.model, self._progress = model, progress
        self.notes: list[str] = []
        self._seconds: dict[str, float] = {}
        self._known: dict[tuple[str, str], Vectors] = {}

    def dim(self, column: Column, passages: Passages | None = None) -> int:
        """The dim of a column: its own, else the index's, else the usual of the model's name. Raises OptionError."""
        if column.dim is None and passages is not None and self._made(passages):
            assert passages.space is not None
            return passages.space.dim
        return self.model.dim(EmbedRequest((), "document", dim=column.dim))

    def of_passages(self, passages: Passages, dim: int) -> Vectors:
        """Vectors (n, `dim` or more) of all passages: the index's own, if they are this model's and long enough."""
        if self._made(passages) and passages.vectors is not None and dim <= passages.vectors.shape[1]:
            return passages.vectors
        return self.of(documents(passages.texts), Names("passage", passages.ids))

    def _made(self, passages: Passages) -> bool:
        """Whether this model made the vectors of the index."""
        return passages.space is not None and passages.space.digest == self.model.digest

    def of(self, request: EmbedRequest, names: Names) -> Vectors:
        """Vectors (n, n_embd) of a request's texts. Raises InputError, which names the text that has none."""
        texts = list(request.texts)
        prefix = self.model.resolve(request).prefix
        key = names.what, prefix
        if key not in self._known:
            self._known[key] = self._embedded(replace(request, texts=texts, dim=self.model.n_embd), names)
        return self._known[key]

    def seconds(self, request: EmbedRequest) -> float:
        """How long this model takes for one text, all by itself and computed anew: the median of the first five."""
        prefix = self.model.resolve(request).prefix
        if prefix not in self._seconds:
            model = _without_cache(self.model)
            taken = []
            for text in list(request.texts)[:_TIMED]:
                began = time.perf_counter()
                model.embed(replace(request, texts=[text]))
                taken.append(time.perf_counter() - began)
            self._seconds[prefix] = median(taken)
        return self._seconds[prefix]

    def _embedded(self, request: EmbedRequest, names: Names) -> Vectors:
        n_texts, n_cut, n_cached = len(names.names), 0, 0
        vectors = np.empty((n_texts, self.model.n_embd), np.float32)
        what = f"embedding {counted(n_texts, names.what)} with {self.model.model}"
        self._progress(what, 0, n_texts, 0)
        for row, (name, result) in enumerate(zip(names.names, self.model.stream(request), strict=True)):
            if isinstance(result, TextError):
                raise InputError(f"{name} {result.message}")
            vectors[row] = result.vector
            n_cut += result.truncated
            n_cached += result.cached
            self._progress(what, row + 1, n_texts, n_cached)
        if n_cut:
            self.notes.append(f"{counted(n_cut, names.what)} cut to the limit of {self.model.model}")
        return vectors


def counting(progress: Progress, what: str) -> Callable[[int, int], None]:
    """A callback that takes two counts, and says what is being done."""
    return lambda n_done, n_total: progress(what, n_done, n_total, 0)


def _without_cache(model: TextModel) -> TextModel:
    """The same model, which computes each text anew; a server's model as the server answers."""
    if not isinstance(model, Embedder):
        return model
    return Embedder(model.engine, model.model, model.prompts, model.defaults, loads_as=model.loads_as)
