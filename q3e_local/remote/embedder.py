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
from q3e_local.errors import SpaceMismatchError, TextError
from q3e_local.remote.asking import as_local, one_each
from q3e_local.remote.connection import Cancellation, Server, ServerRefusedError, ServerUnreachableError
from q3e_local.remote.tokens import TokenCounts, windows
from q3e_local.remote.window_size import TEXTS_MAX, WindowSize, size_of


@dataclass(frozen=True)
class Facts:
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
        self._known: dict[tuple[Any, ...], Facts] = {}
        self._counts: TokenCounts | None = None

    def __repr__(self) -> str:
        return f"<RemoteEmbedder {self.model} on {self.server_name}>"

    @property
    def server_name(self) -> str:
        """The server's address."""
        return self._server.name

    @property
    def loads_as(self) -> str:
        """The model's full name on the server."""
        return self.facts().model

    @property
    def n_embd(self) -> int:
        return self.facts().n_embd

    @property
    def n_ctx_max(self) -> int:
        return self.facts().n_ctx_max

    @property
    def digest(self) -> str:
        return self.facts().digest

    def resolve(self, request: EmbedRequest) -> ResolvedOptions:
        return self.facts(request).resolved

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        return self._counter().count(texts)

    def expect_counts(self, texts: Iterable[str]) -> None:
        """Ask the server ahead for what these texts need, in as few requests as its limits allow."""
        self._counter().expect(texts)

    def close(self) -> None:
        """Hang up; the server keeps its model."""
        self._server.close()

    def facts(
        self,
        request: EmbedRequest = EmbedRequest(()),  # noqa: B008 (frozen)
        cancellation: Cancellation | None = None,
    ) -> Facts:
        """What the server says about its model and these options. Each is asked for once. Raises OptionError."""
        options = _options(request)
        key = tuple(sorted(options.items()))
        if key not in self._known:
            fields = self._ask("/q3e/model", options, cancellation)
            try:
                resolved = ResolvedOptions(
                    fields["prefix"], fields["dim"], fields["limit"], request.truncate, fields["space"]
                )
                self._known[key] = Facts(
                    fields["model"], fields["digest"], fields["n_embd"], fields["n_ctx_max"],
                    tuple(fields["added_tokens"]), fields["max_items"], resolved,
                )  # fmt: skip
            except (KeyError, TypeError, ValueError):
                raise self._not_of_this_version() from None
            self.model = self._known[key].model
        return self._known[key]

    def embed_window(
        self,
        texts: list[str],
        request: EmbedRequest,
        space: str,
        first_index: int,
        cancellation: Cancellation | None = None,
    ) -> list[Embedded | TextError]:
        """A result for each of these texts, whose options are the request's. Errors count texts from `first_index`.

        Raises SpaceMismatchError where the server's vectors are not of this space.
        """
        options, n_texts = _options(request), self.facts(cancellation=cancellation).max_items
        return [
            result
            for first in range(0, len(texts), n_texts)
            for result in self._window(
                texts[first : first + n_texts], options, space, first_index + first, cancellation
            )
        ]

    def count_pieces(self, texts: list[str], cancellation: Cancellation | None = None) -> list[int]:
        """How many tokens each text has, without an end token; for as many texts as the server takes at once."""
        counts = self._ask("/q3e/tokens", {"texts": texts}, cancellation).get("counts")
        if not isinstance(counts, list) or len(counts) != len(texts):
            raise self._not_of_this_version()
        return counts

    def _counter(self) -> TokenCounts:
        if self._counts is None:
            facts = self.facts()
            self._counts = TokenCounts(self.count_pieces, facts.added_tokens, facts.max_items)
        return self._counts

    def _stream(
        self, request: EmbedRequest, resolved: ResolvedOptions, progress: Progress | None
    ) -> Iterator[Embedded | TextError]:
        n_texts = n_tokens = 0
        size = WindowSize()
        items_max = min(TEXTS_MAX, self.facts().max_items)
        for texts in windows(request.texts, items_max, lambda: size.n_bytes):
            began = time.monotonic()
            results = self.embed_window(texts, request, resolved.space, n_texts)
            size.answered(sum(map(size_of, texts)), time.monotonic() - began)
            n_texts += len(results)
            n_tokens += sum(result.prompt_tokens for result in results if isinstance(result, Embedded))
            yield from results
            if progress is not None:  # after the results, which an exception that it raises must not lose
                progress(n_texts, n_tokens)

    def _window(
        self,
        texts: list[str],
        options: dict[str, Any],
        space: str,
        first_index: int,
        cancellation: Cancellation | None,
    ) -> list[Embedded | TextError]:
        """One result for each text."""
        return one_each(texts, first_index, lambda part: self._embedded(part, options, space, cancellation))

    def _embedded(
        self, texts: list[str], options: dict[str, Any], space: str, cancellation: Cancellation | None
    ) -> list[Embedded]:
        """A result for each text. Raises the first TextError, and SpaceMismatchError for another space."""
        fields = self._ask("/q3e/embed", {"texts": texts, **options}, cancellation)
        if fields.get("space") != space:
            raise SpaceMismatchError(
                f"the server at {self.server_name} has another model: its vectors are of the space "
                f"{fields.get('space')}, those before of {space}"
            )
        try:
            vectors = np.frombuffer(base64.b64decode(fields["vectors"]), "<f4").astype(np.float32)
            columns = zip(
                vectors.reshape(len(texts), fields["dim"]), fields["prompt_tokens"], fields["truncated"], strict=True
            )
            return [Embedded(row, int(tokens), bool(truncated)) for row, tokens, truncated in columns]
        except (KeyError, TypeError, ValueError):
            raise self._not_of_this_version() from None

    def _ask(self, path: str, fields: dict[str, Any], cancellation: Cancellation | None = None) -> dict[str, Any]:
        """The server's answer for its model. Raises a refusal as the error that the library raises here."""
        try:
            return self._server.ask("POST", path, {"model": self._name, **fields}, cancellation)
        except ServerRefusedError as error:
            raise as_local(error, len(fields.get("texts", ()))) from None

    def _not_of_this_version(self) -> ServerUnreachableError:
        return ServerUnreachableError(f"the server at {self.server_name} is no q3e-local of this version")


def _options(request: EmbedRequest) -> dict[str, Any]:
    names = ("kind", "task", "instruction", "dim", "truncate", "max_tokens")
    return {name: value for name in names if (value := getattr(request, name)) is not None}
