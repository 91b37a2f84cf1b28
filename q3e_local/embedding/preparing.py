"""What one request does to each text on its way through one model: `Preparation`, and that of an embedding.

    EmbedRequest, Defaults of the model's name -> resolve() -> ResolvedOptions: prompt, dim, limit, space
    ResolvedOptions -> TextPreparation: a text -> ready to be tokenized; its ids -> Fitted, ready to be decoded;
    its pooled vector -> cut and scaled

Checks options against a model; tokenizes and decodes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from q3e_local.embedding.batching import N_PREFIX_MIN, common, fit
from q3e_local.embedding.engine import Engine
from q3e_local.embedding.prompts import Kind, Prompts, normalizer
from q3e_local.embedding.request import DIM_MIN, EmbedRequest
from q3e_local.errors import BadVectorError, InvalidTextError, OptionError, TextTooLongError
from q3e_local.space import Space
from q3e_local.vectors import Vectors, finish


@dataclass(frozen=True)
class Defaults:
    """What a name such as `qwen3-embedding:4b-query` stands for. A request comes before it."""

    kind: Kind = "document"
    task: str | None = None
    instruction: str | None = None
    dim: int | None = None

    def fill(self, request: EmbedRequest) -> EmbedRequest:
        """The request, with these defaults where the request says nothing.

        kind, dim: the request's, else the name's.
        task, instruction: the request's if it has either, else the name's. The name's instruction is used only for
        the kind of text that the name is for; a task says itself whether documents get its instruction.
        """
        kind = self.kind if request.kind is None else request.kind
        task, instruction = request.task, request.instruction
        if task is None and instruction is None:
            task, instruction = self.task, self.instruction if kind == self.kind else None
        dim = self.dim if request.dim is None else request.dim
        return replace(request, kind=kind, task=task, instruction=instruction, dim=dim)


@dataclass(frozen=True)
class ResolvedOptions:
    """A request's options as they apply to a model: every option is set, and within what the model can do."""

    prefix: str  # the prompt before each text; empty for bare texts
    dim: int
    limit: int  # tokens of a text, end token included
    truncate: bool
    space: str


@dataclass(frozen=True)
class Fitted:
    """A text's ids as they are decoded, end token last, and whether they were cut."""

    ids: list[int]
    truncated: bool
    n_prefix: int = 0  # ids of the instruction at the beginning, which other texts have too


def resolve(
    request: EmbedRequest, engine: Engine, model: str, prompts: Prompts, defaults: Defaults
) -> ResolvedOptions:
    """A request's options for the model of this engine, which errors call `model`. Raises OptionError."""
    filled = defaults.fill(request)
    assert filled.kind is not None  # `fill` leaves no kind open
    dim, limit = engine.n_embd, engine.n_ctx_max
    if filled.dim is not None:
        # A dim of the model's name is no option that the caller gave.
        what, option = ("the name's dim", "") if request.dim is None else ("dim", "dim")
        dim = within(filled.dim, DIM_MIN, dim, model, what, option)
    if request.max_tokens is not None:
        limit = within(request.max_tokens, 1, limit, model, "max_tokens", "max_tokens")
    prefix = prompts.prefix(filled.kind, filled.task, filled.instruction)
    return ResolvedOptions(prefix, dim, limit, request.truncate, str(Space(engine.digest, dim, prefix)))


class Preparation(Protocol):
    """A request's resolved options, and what they do to texts, ids and answers.

    Made once for a request and a model.
    """

    resolved: ResolvedOptions
    full_space: Space  # of what the engine answers, as the cache keeps it

    def ready(self, text: str, index: int) -> str:
        """The text prompted and normalized, ready to be tokenized. Raises InvalidTextError."""

    def parts(self, text: str) -> list[str]:
        """A ready text in the parts that are tokenized one by one, whose ids one after another are the text's."""

    def fit(self, ids: list[int], index: int, prefix_ids: Sequence[int] = ()) -> Fitted:
        """The ids of a ready text, made ready to be decoded; `prefix_ids` are the ids of the prompt alone.

        Raises TextTooLongError where the request does not let texts be cut.
        """

    def finished(self, pooled: Vectors) -> tuple[Vectors, dict[int, BadVectorError]]:
        """What the caller gets of the engine's answers (n, n_embd), and an error for each row that is of no use."""


class TextPreparation:
    """The `Preparation` of an embedding."""

    def __init__(self, engine: Engine, resolved: ResolvedOptions) -> None:
        self.resolved = resolved
        # The cache keeps vectors at the model's native dim: vectors of all smaller dims are cut from them.
        self.full_space = Space(engine.digest, engine.n_embd, resolved.prefix)
        self._eos_id = engine.eos_id
        self._normalize = normalizer(engine.added_tokens)

    def ready(self, text: str, index: int) -> str:
        check_text(text, index)
        return self._normalize(self.resolved.prefix + text)

    def parts(self, text: str) -> list[str]:
        return [text]

    def fit(self, ids: list[int], index: int, prefix_ids: Sequence[int] = ()) -> Fitted:
        limit = self.resolved.limit
        fitted, truncated = fit(ids, limit, self._eos_id)
        if truncated and not self.resolved.truncate:
            raise TextTooLongError(f"has {len(ids) + 1} tokens, the limit is {limit}; truncate it or split it", index)
        # subtle: the prompt's last token may take in the beginning of the text, as ":" does with a letter.
        n_prefix = common(fitted, prefix_ids)
        return Fitted(fitted, truncated, n_prefix if n_prefix >= N_PREFIX_MIN else 0)

    def finished(self, pooled: Vectors) -> tuple[Vectors, dict[int, BadVectorError]]:
        """Cut and scaled rows, and an error for each row that is cut to zeros, and so has no direction."""
        vectors = finish(pooled, self.resolved.dim)
        what = f"the first {self.resolved.dim} numbers of its vector are all 0; raise dim"
        return vectors, {int(row): BadVectorError(what, int(row)) for row in np.flatnonzero(~vectors.any(axis=1))}


def check_text(text: str, index: int) -> None:
    """Raise InvalidTextError for what is no text."""
    if not isinstance(text, str):
        raise InvalidTextError(f"a text must be a str, got {type(text).__name__}", index)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InvalidTextError(
            f"character {error.start} is the lone surrogate {text[error.start]!r}, which is no text", index
        ) from None


def within(value: object, low: int, high: int, model: str, what: str, option: str) -> int:
    """The value, if it is a number between these limits. Raises OptionError."""
    if type(value) is not int or not low <= value <= high:
        raise OptionError(f"{what} must be between {low} and {high} for {model}, got {value!r}", option)
    return value
