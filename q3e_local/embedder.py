"""Texts to embeddings, end to end: normalize, prompt, tokenize, fit, pack, decode, cut and scale.

Is handed an Engine and imports none; knows nothing of files, terminals or HTTP.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from types import TracebackType

import numpy as np

from q3e_local.batching import fit, pack
from q3e_local.engine import Engine
from q3e_local.errors import BadVectorError, InvalidTextError, OptionError, TextError, TextTooLongError
from q3e_local.prompts import Kind, Prompts, normalizer
from q3e_local.space import Space
from q3e_local.vectors import Vectors, finish

DIM_MIN = 32  # the least the model card documents

# Texts are packed this many batches at a time: enough to fill them well, few enough that results keep coming
# (4B: every 10 s on two cores) and memory does not grow with the number of texts.
_WINDOW_BATCHES = 2
_WINDOW_TEXTS = 1024

Progress = Callable[[int, int], None]
"""Called as `progress(n_texts, n_tokens)` after each decode with what is done in all, texts that failed included."""


@dataclass(frozen=True)
class EmbedRequest:
    """Texts and what is to be done with them."""

    texts: Iterable[str]
    kind: Kind = "document"  # a query gets the instruct prompt
    task: str | None = None  # a name from prompts.TASKS; None: retrieval
    instruction: str | None = None  # free text instead of a task
    dim: int | None = None  # None: the model's native size
    truncate: bool = False  # cut too-long texts instead of failing
    max_tokens: int | None = None  # a lower limit than the model's own, end token included


@dataclass(frozen=True)
class Embedded:
    """One text's embedding: `vector` float32 (dim,) of length 1; tokens are counted after cutting."""

    vector: Vectors
    prompt_tokens: int
    truncated: bool


@dataclass(frozen=True)
class EmbedResult:
    """Embeddings in the caller's order: `vectors` float32 (n, dim) with rows of length 1."""

    vectors: Vectors
    prompt_tokens: tuple[int, ...]
    truncated: tuple[bool, ...]
    model: str
    space: str


@dataclass(frozen=True)
class Terms:
    """What a request comes to for one model: its options checked, and what goes before each text."""

    prefix: str
    dim: int
    limit: int  # tokens of a text, end token included
    truncate: bool
    space: str


@dataclass(frozen=True)
class Fitted:
    """A text's ids as they are decoded, end token last, and whether they were cut."""

    ids: list[int]
    truncated: bool


class Embedder:
    """A model that turns texts into embeddings. Safe to use from several threads; close it when done."""

    def __init__(self, engine: Engine, model: str, prompts: Prompts = Prompts()) -> None:  # noqa: B008 (frozen)
        self.engine = engine
        self.model = model
        self.prompts = prompts
        self._normalize = normalizer(engine.added_tokens)

    @property
    def n_embd(self) -> int:
        """The native size of an embedding, and the largest `dim`."""
        return self.engine.n_embd

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
        """Embed texts as they stand, or with the instruction of a task that puts one before every text.

        Raises TextError naming the first text that cannot be embedded; `truncate` cuts too-long ones instead.
        """
        return self.embed(EmbedRequest(texts, "document", task, instruction, dim, truncate, max_tokens), progress)

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
        """Embed one question with its instruction; `vectors` has one row."""
        return self.embed(EmbedRequest([text], "query", task, instruction, dim, truncate, max_tokens))

    def embed(self, request: EmbedRequest, progress: Progress | None = None) -> EmbedResult:
        """Embed all texts of a request. Raises OptionError, or the TextError of the first text that fails."""
        done: list[Embedded] = []
        for item in self.stream(request, progress):
            if isinstance(item, TextError):
                raise item
            done.append(item)
        dim = self.n_embd if request.dim is None else request.dim
        return EmbedResult(
            vectors=np.stack([item.vector for item in done]) if done else np.empty((0, dim), np.float32),
            prompt_tokens=tuple(item.prompt_tokens for item in done),
            truncated=tuple(item.truncated for item in done),
            model=self.model,
            space=self.space(request),
        )

    def stream(self, request: EmbedRequest, progress: Progress | None = None) -> Iterator[Embedded | TextError]:
        """One item for each text, in order, as they are done; a text that cannot be embedded is its TextError.

        Reads `texts` a window at a time, so memory stays the same however many there are. Raises OptionError at
        once.
        """
        self.check(request)
        return self._stream(request, self.terms(request), progress)

    def check(self, request: EmbedRequest) -> None:
        """Raise OptionError for what this model cannot do, before anything is begun. Reads none of the texts."""
        if not isinstance(request, EmbedRequest):
            raise OptionError(
                f"embed and stream take an EmbedRequest, got {type(request).__name__}; or use embed_documents"
            )
        self.terms(request)
        if isinstance(request.texts, str):
            raise OptionError("texts must be a list of texts, got one str; put it in a list")

    def space(self, request: EmbedRequest) -> str:
        """The name of the vector space this request's embeddings live in."""
        return self.terms(request).space

    def terms(self, request: EmbedRequest) -> Terms:
        """The request's options for this model. Raises OptionError."""
        dim, limit = self._dim(request), self._limit(request)
        prefix = self.prompts.prefix(request.kind, request.task, request.instruction)
        space = str(Space(self.engine.digest, dim, prefix))
        return Terms(prefix, dim, limit, request.truncate, space)

    def readied(self, text: str, index: int, terms: Terms) -> str:
        """The text as it is tokenized: prompted and normalized. Raises InvalidTextError."""
        if not isinstance(text, str):
            raise InvalidTextError(f"a text must be a str, got {type(text).__name__}", index)
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise InvalidTextError(
                f"character {error.start} is the lone surrogate {text[error.start]!r}, which is no text", index
            ) from None
        return self._normalize(terms.prefix + text)

    def fitted(self, ids: list[int], index: int, terms: Terms) -> Fitted:
        """Ids without an end token as they are decoded. Raises TextTooLongError where cutting was not asked for."""
        fitted, truncated = fit(ids, terms.limit, self.engine.eos_id)
        if truncated and not terms.truncate:
            raise TextTooLongError(
                f"has {len(ids) + 1} tokens, the limit is {terms.limit}; truncate it or split it", index
            )
        return Fitted(fitted, truncated)

    def close(self) -> None:
        """Free the model."""
        self.engine.close()

    def __enter__(self) -> Embedder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _dim(self, request: EmbedRequest) -> int:
        if request.dim is None:
            return self.n_embd
        if type(request.dim) is not int or not DIM_MIN <= request.dim <= self.n_embd:
            raise OptionError(
                f"dim must be between {DIM_MIN} and {self.n_embd} for {self.model}, got {request.dim!r}"
            )
        return request.dim

    def _limit(self, request: EmbedRequest) -> int:
        if request.max_tokens is None:
            return self.engine.n_ctx_max
        limit = self.engine.n_ctx_max
        if type(request.max_tokens) is not int or not 1 <= request.max_tokens <= limit:
            raise OptionError(
                f"max_tokens must be between 1 and {limit} for {self.model}, got {request.max_tokens!r}"
            )
        return request.max_tokens

    def _stream(
        self, request: EmbedRequest, terms: Terms, progress: Progress | None
    ) -> Iterator[Embedded | TextError]:
        window: list[Fitted | TextError] = []
        n_waiting = n_texts = n_tokens = 0

        def advance(texts: int, tokens: int) -> None:
            nonlocal n_texts, n_tokens
            n_texts, n_tokens = n_texts + texts, n_tokens + tokens
            if progress is not None:
                progress(n_texts, n_tokens)

        for index, text in enumerate(request.texts):
            try:
                ids = self.engine.tokenize(self.readied(text, index, terms))
                sequence = self.fitted(ids, index, terms)
            except TextError as error:
                window.append(error)
            else:
                window.append(sequence)
                n_waiting += len(sequence.ids)
            if n_waiting >= _WINDOW_BATCHES * self.engine.n_batch or len(window) >= _WINDOW_TEXTS:
                yield from self._decode(window, index + 1 - len(window), request.dim, advance)
                window, n_waiting = [], 0
        if window:
            yield from self._decode(window, index + 1 - len(window), request.dim, advance)

    def _decode(
        self,
        window: list[Fitted | TextError],
        first_index: int,
        dim: int | None,
        advance: Callable[[int, int], None],
    ) -> list[Embedded | TextError]:
        results: dict[int, Embedded | TextError] = {}
        sequences: list[tuple[int, Fitted]] = []
        for row, item in enumerate(window):
            if isinstance(item, TextError):
                results[row] = item
            else:
                sequences.append((row, item))
        if results:
            advance(len(results), 0)
        for places in pack([len(item.ids) for _, item in sequences], self.engine.n_batch, self.engine.n_seq_max):
            batch = [sequences[place] for place in places]
            vectors = self._vectors([item.ids for _, item in batch], dim)
            for (row, item), vector in zip(batch, vectors, strict=True):
                if isinstance(vector, BadVectorError):
                    results[row] = BadVectorError(vector.message, first_index + row)
                else:
                    results[row] = Embedded(vector, len(item.ids), item.truncated)
            advance(len(batch), sum(len(item.ids) for _, item in batch))
        return [results[row] for row in range(len(window))]

    def _vectors(self, batch: list[list[int]], dim: int | None) -> list[Vectors | BadVectorError]:
        """One for each sequence. A text that the model fails on costs its neighbours a second decode."""
        try:
            vectors = finish(self.engine.decode(batch), dim)
        except BadVectorError as error:
            others = self._vectors(batch[: error.index] + batch[error.index + 1 :], dim)
            others.insert(error.index, error)
            return others
        return [
            vector
            if vector.any()
            else BadVectorError(f"the first {dim} numbers of its vector are all 0; raise dim", row)
            for row, vector in enumerate(vectors)
        ]
