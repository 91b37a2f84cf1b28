"""Rank on a running q3e-local server: `RemoteReranker`, a RankModel that computes nothing.

Knows the server's route for ranking; leaves HTTP to `connection`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, NamedTuple

from q3e_local.embedding.stream import Progress
from q3e_local.errors import TextError
from q3e_local.remote.asking import as_local, one_each
from q3e_local.remote.connection import Server, ServerRefusedError, ServerUnreachableError
from q3e_local.remote.tokens import windows
from q3e_local.remote.window_size import TEXTS_MAX, WindowSize, size_of
from q3e_local.reranking.preparing import RankRequest
from q3e_local.reranking.rank_model import Ranked, RankModel, probability


class _Read(NamedTuple):
    """What the server answers for a document."""

    logit: float
    tokens: int
    truncated: bool


class RemoteReranker(RankModel):
    """A server's reranker, by the name it has there. Safe to use from several threads; close it when done.

    Its calls raise, besides what Reranker's raise, ModelError, ServerUnreachableError and ServerRefusedError.
    """

    def __init__(self, server: Server, model: str) -> None:
        self._server, self._name = server, model
        self.model = model

    def __repr__(self) -> str:
        return f"<RemoteReranker {self.model} on {self._server.name}>"

    def close(self) -> None:
        """Hang up; the server keeps its model."""
        self._server.close()

    def _stream(self, request: RankRequest, progress: Progress | None) -> Iterator[Ranked | TextError]:
        # Without a document, so that a question or an option that the model cannot take is told at once.
        answer = self._ask(_options(request), [])
        try:
            self.model, items_max = str(answer["model"]), int(answer["max_items"])
        except (KeyError, TypeError, ValueError):
            raise self._not_of_this_version() from None
        return self._ranked(request, items_max, progress)

    def _ranked(
        self, request: RankRequest, items_max: int, progress: Progress | None
    ) -> Iterator[Ranked | TextError]:
        options, size = _options(request), WindowSize()
        n_documents = n_tokens = 0
        for texts in windows(request.documents, min(TEXTS_MAX, items_max), lambda: size.n_bytes):
            began = time.monotonic()
            results = one_each(texts, n_documents, lambda texts: self._read(options, texts))
            size.answered(sum(map(size_of, texts)), time.monotonic() - began)
            for index, read in enumerate(results, n_documents):
                if isinstance(read, TextError):
                    yield read
                else:
                    n_tokens += read.tokens
                    yield Ranked(index, probability(read.logit), read.logit, read.truncated, read.tokens)
            n_documents += len(results)
            if progress is not None:  # after the results, which an exception that it raises must not lose
                progress(n_documents, n_tokens)

    def _read(self, options: dict[str, Any], texts: list[str]) -> list[_Read]:
        """What the server says of each document. Raises the TextError of the first that fails."""
        answer = self._ask(options, texts)
        try:
            columns = zip(answer["logits"], answer["prompt_tokens"], answer["truncated"], strict=True)
            read = [_Read(float(logit), int(tokens), bool(truncated)) for logit, tokens, truncated in columns]
        except (KeyError, TypeError, ValueError):
            raise self._not_of_this_version() from None
        if len(read) != len(texts):
            raise self._not_of_this_version()
        return read

    def _ask(self, options: dict[str, Any], texts: list[str]) -> dict[str, Any]:
        """The server's answer for its model. Raises a refusal as the error that the library raises here."""
        try:
            return self._server.ask("POST", "/q3e/rank", {"model": self._name, "texts": texts, **options})
        except ServerRefusedError as error:
            raise as_local(error, len(texts)) from None

    def _not_of_this_version(self) -> ServerUnreachableError:
        return ServerUnreachableError(f"the server at {self._server.name} is no q3e-local of this version")


def _options(request: RankRequest) -> dict[str, Any]:
    names = ("query", "task", "instruction", "truncate", "max_tokens", "max_document_tokens")
    return {name: value for name in names if (value := getattr(request, name)) is not None}
