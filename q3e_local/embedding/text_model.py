"""What turns texts into embeddings, wherever it computes: `TextModel`, and its calls for lists of texts.

Knows requests and results. Leaves to its subclasses where texts become vectors: in this process, on a server, or on
several.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from typing import Self

import numpy as np

from q3e_local.embedding.preparing import ResolvedOptions
from q3e_local.embedding.request import Embedded, EmbedRequest, EmbedResult
from q3e_local.embedding.stream import Progress
from q3e_local.errors import OptionError, TextError


class TextModel(ABC):
    """A model that turns texts into embeddings. Close it when done."""

    model: str

    @property
    @abstractmethod
    def loads_as(self) -> str:
        """What loads this model again: its name, or the absolute path of its file."""

    @property
    @abstractmethod
    def n_embd(self) -> int:
        """The native size of an embedding, and the largest `dim`."""

    @property
    @abstractmethod
    def n_ctx_max(self) -> int:
        """The most tokens of a text, its end token included."""

    @property
    @abstractmethod
    def digest(self) -> str:
        """The hex digest that names the model's file in vector spaces."""

    @abstractmethod
    def resolve(self, request: EmbedRequest) -> ResolvedOptions:
        """The request's options for this model. Raises OptionError."""

    @abstractmethod
    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """How many tokens each text has without an instruction, its end token included."""

    @abstractmethod
    def expect_counts(self, texts: Iterable[str]) -> None:
        """Prepare to count the tokens of these texts and of parts of them, where few large counts are quicker."""

    @abstractmethod
    def close(self) -> None:
        """Free what the model takes."""

    @abstractmethod
    def _stream(
        self, request: EmbedRequest, resolved: ResolvedOptions, progress: Progress | None
    ) -> Iterator[Embedded | TextError]:
        """The items of `stream`, for a request whose resolved options these are."""

    def embed_documents(
        self,
        texts: Iterable[str],
        dim: int | None = None,
        *,
        task: str | None = None,
        instruction: str | None = None,
        truncate: bool = False,
        max_tokens: int | None = None,
        progress: Progress | None = None,
    ) -> EmbedResult:
        """Embed texts as they stand, or with the instruction of a task that goes before documents too.

        `vectors` is float32 (n_texts, dim). `progress(n_texts, n_tokens)` is called after each batch with the counts
        so far. Raises TextError naming the first text that cannot be embedded; `truncate` cuts too-long ones instead.
        """
        return self.embed(EmbedRequest(texts, "document", task, instruction, dim, truncate, max_tokens), progress)

    def embed_queries(
        self,
        texts: Iterable[str],
        dim: int | None = None,
        *,
        task: str | None = None,
        instruction: str | None = None,
        truncate: bool = False,
        max_tokens: int | None = None,
        progress: Progress | None = None,
    ) -> EmbedResult:
        """Embed queries with their instruction: `vectors` is float32 (n_texts, dim).

        `progress` and errors are those of `embed_documents`.
        """
        return self.embed(EmbedRequest(texts, "query", task, instruction, dim, truncate, max_tokens), progress)

    def embed_query(
        self,
        text: str,
        dim: int | None = None,
        *,
        task: str | None = None,
        instruction: str | None = None,
        truncate: bool = False,
        max_tokens: int | None = None,
    ) -> EmbedResult:
        """Embed a single query with its instruction: `vectors` has one row. For several: `embed_queries`."""
        if not isinstance(text, str):
            raise OptionError(f"embed_query takes one text, got {type(text).__name__}; for several: embed_queries")
        return self.embed(EmbedRequest([text], "query", task, instruction, dim, truncate, max_tokens))

    def stream(self, request: EmbedRequest, progress: Progress | None = None) -> Iterator[Embedded | TextError]:
        """One item for each text, in order, as the texts are done: its embedding, or the TextError why it has none.

        Reads `texts` a window at a time, so that memory does not grow with their number. Raises OptionError at once.
        """
        return self._stream(request, self.check(request), progress)

    def embed(self, request: EmbedRequest, progress: Progress | None = None) -> EmbedResult:
        """Embed all texts of a request. Raises OptionError, or the TextError of the first text that fails."""
        resolved = self.check(request)
        done: list[Embedded] = []
        for item in self._stream(request, resolved, progress):
            if isinstance(item, TextError):
                raise item
            done.append(item)
        none = np.empty((0, resolved.dim), np.float32)
        return EmbedResult(
            vectors=np.stack([item.vector for item in done]) if done else none,
            prompt_tokens=tuple(item.prompt_tokens for item in done),
            truncated=tuple(item.truncated for item in done),
            model=self.model,
            space=resolved.space,
            cached=tuple(item.cached for item in done),
        )

    def check(self, request: EmbedRequest) -> ResolvedOptions:
        """The request's options for this model. Reads none of the texts.

        Raises OptionError for what is no request, and for options that this model does not have.
        """
        if not isinstance(request, EmbedRequest):
            raise OptionError(
                f"embed and stream take an EmbedRequest, got {type(request).__name__}; or use embed_documents"
            )
        resolved = self.resolve(request)
        if isinstance(request.texts, str):
            raise OptionError("texts must be a list of texts, got one str; put it in a list")
        return resolved

    def space(self, request: EmbedRequest) -> str:
        """The name of the vector space this request's embeddings live in."""
        return self.resolve(request).space

    def dim(self, request: EmbedRequest) -> int:
        """How many numbers this request's embeddings have."""
        return self.resolve(request).dim

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
