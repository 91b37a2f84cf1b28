"""What one request does to each text on its way into one model: `Preparation`.

Checks a request's options against a model and holds what the options come to: prompt, limit, dim, vector space.
Makes texts ready to be tokenized, and token ids ready to be decoded. Tokenizes and decodes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from q3e_local.embedding.batching import N_PREFIX_MIN, common, fit
from q3e_local.embedding.engine import Engine
from q3e_local.embedding.prompts import Kind, Prompts, normalizer
from q3e_local.embedding.request import DIM_MIN, EmbedRequest
from q3e_local.errors import InvalidTextError, OptionError, TextTooLongError
from q3e_local.space import Space


@dataclass(frozen=True)
class Defaults:
    """What a name such as `qwen3-embedding:4b-query` asks for. What a request says comes before it."""

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
class Terms:
    """What a request's options come to for one model: every option is there, and the model can do it."""

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
    n_prefix: int = 0  # ids of the instruction at the beginning, which other texts begin with too


def resolve(request: EmbedRequest, engine: Engine, model: str, prompts: Prompts, defaults: Defaults) -> Terms:
    """A request's options for the model of this engine, which errors call `model`. Raises OptionError."""
    filled = defaults.fill(request)
    assert filled.kind is not None  # `fill` leaves no kind open
    dim, limit = _dim(request, filled, engine.n_embd, model), _limit(request, engine.n_ctx_max, model)
    prefix = prompts.prefix(filled.kind, filled.task, filled.instruction)
    return Terms(prefix, dim, limit, request.truncate, str(Space(engine.digest, dim, prefix)))


class Preparation:
    """A request's terms, and what they do to texts and ids. Made once for a request and a model."""

    def __init__(self, engine: Engine, terms: Terms) -> None:
        self.terms = terms
        # The cache keeps vectors at the model's own dim, which all smaller ones are cut from.
        self.full_space = Space(engine.digest, engine.n_embd, terms.prefix)
        self._eos_id = engine.eos_id
        self._normalize = normalizer(engine.added_tokens)

    def ready(self, text: str, index: int) -> str:
        """The text as it is tokenized: prompted and normalized. Raises InvalidTextError."""
        check_text(text, index)
        return self._normalize(self.terms.prefix + text)

    def fit(self, ids: list[int], index: int, prefix_ids: Sequence[int] = ()) -> Fitted:
        """Ids without an end token as they are decoded; `prefix_ids` are those of the prompt alone.

        Raises TextTooLongError where the request does not let texts be cut.
        """
        limit = self.terms.limit
        fitted, truncated = fit(ids, limit, self._eos_id)
        if truncated and not self.terms.truncate:
            raise TextTooLongError(f"has {len(ids) + 1} tokens, the limit is {limit}; truncate it or split it", index)
        # subtle: the prompt's last token may take in the beginning of the text, as ":" does with a letter.
        n_prefix = common(fitted, prefix_ids)
        return Fitted(fitted, truncated, n_prefix if n_prefix >= N_PREFIX_MIN else 0)


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


def _dim(request: EmbedRequest, filled: EmbedRequest, n_embd: int, model: str) -> int:
    dim = filled.dim
    if dim is None:
        return n_embd
    if type(dim) is not int or not DIM_MIN <= dim <= n_embd:
        # A dim of the model's name is no option of the caller's.
        what, option = ("the name's dim", "") if request.dim is None else ("dim", "dim")
        raise OptionError(f"{what} must be between {DIM_MIN} and {n_embd} for {model}, got {dim!r}", option)
    return dim


def _limit(request: EmbedRequest, n_ctx_max: int, model: str) -> int:
    limit = request.max_tokens
    if limit is None:
        return n_ctx_max
    if type(limit) is not int or not 1 <= limit <= n_ctx_max:
        raise OptionError(f"max_tokens must be between 1 and {n_ctx_max} for {model}, got {limit!r}", "max_tokens")
    return limit
