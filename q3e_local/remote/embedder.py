"""Embed on a running q3e-local server: `RemoteEmbedder`, a TextModel that computes nothing.

Knows the server's own routes; leaves HTTP to `connection` and counting tokens to `tokens`.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from q3e_local.embedding.preparing import ResolvedOptions
from q3e_local.embedding.request import Embedded, EmbedRequest
from q3e_local.embedding.stream import Progress
from q3e_local.embedding.text_model import TextModel
from q3e_local.errors import TextError
from q3e_local.remote.asking import as_local, one_each
from q3e_local.remote.connection import Server, ServerRefusedError, ServerUnreachableError
from q3e_local.remote.tokens import TokenCounts, windows

# A window, the texts of one request, grows and shrinks so that answers keep coming and batches stay full.
_WINDOW_S = (1.0, 4.0)
_WINDOW_BYTES = (4_096, 1 << 20)
_WINDOW_TEXTS = 256


@dataclass(frozen=True)
class _Facts:
    """What the server says about its model, and about a request's options."""

    model: str
    digest: str
    n_embd: int
    n_ctx_max: int
    added_tokens: tuple[str, ...]
    max_items: int
    resolved: ResolvedOptions


class RemoteEmbedder(TextModel):
    """A server's model, by the name it has there. Safe to use from several threads; close it when done.

    Its calls raise, besides what Embedder's raise, ModelError, ServerUnreachableError and ServerRefusedError.
    """

    def __init__(self, server: Server, model: str) -> None:
        self._server, self._name = server, model
        self.model = model
        self._known: dict[tuple[Any, ...], _Facts] = {}
        self._counts: TokenCounts | None = None

    def __repr__(self) -> str:
        return f"<RemoteEmbedder {self.model} on {self._server.name}>"

    @property
    def loads_as(self) -> str:
        """The model's full name on the server."""
        return self._facts().model

    @property
    def n_embd(self) -> int:
        return self._facts().n_embd

    @property
    def n_ctx_max(self) -> int:
        return self._facts().n_ctx_max

    @property
    def digest(self) -> str:
        return self._facts().digest

    def resolve(self, request: EmbedRequest) -> ResolvedOptions:
        return self._facts(request).resolved

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        return self._counter().count(texts)

    def expect_counts(self, texts: Iterable[str]) -> None:
        """Ask the server ahead for what these texts need, in as few requests as its limits allow."""
        self._counter().expect(texts)

    def close(self) -> None:
        """Hang up; the server keeps its model."""
        self._server.close()

    def _facts(self, request: EmbedRequest = EmbedRequest(())) -> _Facts:  # noqa: B008 (frozen)
        """What the server says about its model and these options. Each is asked for once."""
        options = _options(request)
        key = tuple(sorted(options.items()))
        if key not in self._known:
            fields = self._ask("/q3e/model", options)
            try:
                resolved = ResolvedOptions(
                    fields["prefix"], fields["dim"], fields["limit"], request.truncate, fields["space"]
                )
                self._known[key] = _Facts(
                    fields["model"], fields["digest"], fields["n_embd"], fields["n_ctx_max"],
                    tuple(fields["added_tokens"]), fields["max_items"], resolved,
                )  # fmt: skip
            except (KeyError, TypeError, ValueError):
                raise self._not_of_this_version() from None
            self.model = self._known[key].model
        return self._known[key]

    def _counter(self) -> TokenCounts:
        if self._counts is None:
            facts = self._facts()
            self._counts = TokenCounts(self._count, facts.added_tokens, facts.max_items)
        return self._counts

    def _count(self, texts: list[str]) -> list[int]:
        """How many tokens each text has, without an end token; for as many texts as the server takes at once."""
        counts = self._ask("/q3e/tokens", {"texts": texts}).get("counts")
        if not isinstance(counts, list) or len(counts) != len(texts):
            raise self._not_of_this_version()
        return counts

    def _stream(
        self, request: EmbedRequest, resolved: ResolvedOptions, progress: Progress | None
    ) -> Iterator[Embedded | TextError]:
        options = _options(request)
        n_texts = n_tokens = 0
        smallest, largest = _WINDOW_BYTES
        enough_bytes = 4 * smallest
        items_max = min(_WINDOW_TEXTS, self._facts().max_items)
        requests = windows(request.texts, items_max, lambda: enough_bytes)
        for texts in requests:
            began = time.monotonic()
            results = self._window(texts, options, resolved.space, n_texts)
            seconds = time.monotonic() - began
            if seconds < _WINDOW_S[0]:
                enough_bytes = min(enough_bytes * 2, largest)
            elif seconds > _WINDOW_S[1]:
                enough_bytes = max(enough_bytes // 2, smallest)
            n_texts += len(results)
            n_tokens += sum(result.prompt_tokens for result in results if isinstance(result, Embedded))
            yield from results
            if progress is not None:  # after the results, which an exception that it raises must not lose
                progress(n_texts, n_tokens)

    def _window(
        self, texts: list[str], options: dict[str, Any], space: str, first_index: int
    ) -> list[Embedded | TextError]:
        return one_each(texts, first_index, lambda part: self._embedded(part, options, space))

    def _embedded(self, texts: list[str], options: dict[str, Any], space: str) -> list[Embedded]:
        """A result for each text. Raises the first TextError, and ServerUnreachableError for another space."""
        fields = self._ask("/q3e/embed", {"texts": texts, **options})
        if fields.get("space") != space:
            raise ServerUnreachableError(
                f"the server's model changed: its vectors were of the space {space}, now of {fields.get('space')}"
            )
        try:
            vectors = np.frombuffer(base64.b64decode(fields["vectors"]), "<f4").astype(np.float32)
            columns = zip(
                vectors.reshape(len(texts), fields["dim"]), fields["prompt_tokens"], fields["truncated"], strict=True
            )
            return [Embedded(row, int(tokens), bool(truncated)) for row, tokens, truncated in columns]
        except (KeyError, TypeError, ValueError):
            raise self._not_of_this_version() from None

    def _ask(self, path: str, fields: dict[str, Any]) -> dict[str, Any]:
        """The server's answer for its model. Raises a refusal as the error that the library raises here."""
        try:
            return self._server.ask("POST", path, {"model": self._name, **fields})
        except ServerRefusedError as error:
            raise as_local(error, len(fields.get("texts", ()))) from None

    def _not_of_this_version(self) -> ServerUnreachableError:
        return ServerUnreachableError(f"the server at {self._server.name} is no q3e-local of this version")


def _options(request: EmbedRequest) -> dict[str, Any]:
    names = ("kind", "task", "instruction", "dim", "truncate", "max_tokens")
    return {name: value for name in names if (value := getattr(request, name)) is not None}
