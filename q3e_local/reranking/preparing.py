"""What one question does to each document on its way through a reranker: `PairPreparation`.

    RankRequest -> resolve() -> Resolved: the prompt up to the document, limit
    Resolved -> PairPreparation: a document -> the body of the prompt; its ids -> prefix + body + suffix

Checks options against a model; decodes nothing.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from q3e_local.embedding.batching import N_PREFIX_MIN, common
from q3e_local.embedding.engine import Engine
from q3e_local.embedding.preparing import Defaults, Fitted, ResolvedOptions, check_text, within
from q3e_local.errors import BadVectorError, InvalidTextError, OptionError, TextTooLongError
from q3e_local.reranking.prompts import PREFIX, SUFFIX, RerankPrompts, parter
from q3e_local.space import Space
from q3e_local.vectors import Vectors


@dataclass(frozen=True)
class RankRequest:
    """A question, documents, and how to read them together."""

    query: str
    documents: Iterable[str]
    task: str | None = None  # a name from prompts.TASKS; None: retrieval
    instruction: str | None = None  # free text instead of a task
    truncate: bool = True  # cut too-long documents instead of failing
    max_tokens: int | None = None  # of question, document and prompt together; None: the model's limit
    max_document_tokens: int | None = None

    def filled(self, defaults: Defaults) -> RankRequest:
        """The request, with the task or instruction that the model's name stands for where it says neither."""
        if self.task is not None or self.instruction is not None:
            return self
        return replace(self, task=defaults.task, instruction=defaults.instruction)


def resolve(request: RankRequest, engine: Engine, model: str, prompts: RerankPrompts) -> ResolvedOptions:
    """A request's options for the model of this engine, which errors call `model`.

    Raises OptionError, also for a question that is no text or is blank, which nothing could answer.
    """
    if engine.kind != "reranker":
        raise OptionError(f"{model} is an embedding model, and ranks nothing")
    try:
        check_text(request.query, 0)
    except InvalidTextError as error:
        raise OptionError(f"the query is no text: {error.message}", "query") from None
    if not request.query.strip():
        raise OptionError("the query is empty; ask something", "query")
    limit = engine.n_ctx_max
    if request.max_tokens is not None:
        limit = within(request.max_tokens, 1, limit, model, "max_tokens", "max_tokens")
    before = prompts.before_document(request.query, request.task, request.instruction)
    return ResolvedOptions(before, 1, limit, request.truncate, str(Space(engine.digest, 1, before)))


class PairPreparation:
    """The `Preparation` of a question's documents. The prompt's body is tokenized by itself, as the authors do."""

    def __init__(self, engine: Engine, resolved: ResolvedOptions, max_document_tokens: int | None = None) -> None:
        """Raises OptionError where the question leaves no room for a document."""
        self.full_space = Space(engine.digest, 1, resolved.prefix)
        self._before = resolved.prefix
        self._prefix, self._suffix = engine.tokenize(PREFIX), engine.tokenize(SUFFIX)
        self._parts = parter(engine.added_tokens)
        n_before = sum(len(engine.tokenize(part)) for part in self.parts(self.ready("", 0)))
        n_fixed = len(self._prefix) + n_before + len(self._suffix)
        if n_fixed >= resolved.limit:
            raise OptionError(
                f"the query and its prompt have {n_fixed} tokens, the limit is {resolved.limit} with the document; "
                "shorten the query",
                "query",
            )
        self._n_body_max = resolved.limit - len(self._prefix) - len(self._suffix)
        if max_document_tokens is not None:
            self._n_body_max = min(self._n_body_max, n_before + max_document_tokens)
        # The limit that documents are cut to is what a cache tells cut ones by.
        limit = len(self._prefix) + self._n_body_max + len(self._suffix)
        self.resolved = replace(resolved, limit=limit)

    def ready(self, text: str, index: int) -> str:
        check_text(text, index)
        return unicodedata.normalize("NFC", self._before + text)

    def parts(self, text: str) -> list[str]:
        return self._parts(text)

    def fit(self, ids: list[int], index: int, prefix_ids: Sequence[int] = ()) -> Fitted:
        body = ids[: self._n_body_max]
        is_cut = len(body) < len(ids)
        if is_cut and not self.resolved.truncate:
            n_ids, limit = len(ids) - len(prefix_ids), self._n_body_max - len(prefix_ids)
            raise TextTooLongError(f"has {n_ids} tokens, the limit is {limit}; truncate it or split it", index)
        n_prefix = len(self._prefix) + common(body, prefix_ids)
        return Fitted([*self._prefix, *body, *self._suffix], is_cut, n_prefix if n_prefix >= N_PREFIX_MIN else 0)

    def finished(self, pooled: Vectors) -> tuple[Vectors, dict[int, BadVectorError]]:
        return pooled, {}
