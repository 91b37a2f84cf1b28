"""The one path to vectors and scores: what every dialect translates into and out of.

Knows texts, models and results; nothing of HTTP or of any wire format.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from q3e_local.embedding.preparing import ResolvedOptions
from q3e_local.embedding.prompts import Kind
from q3e_local.gguf.model_kind import ModelKind
from q3e_local.llama.kernels.choice import Kernels
from q3e_local.llama.settings.placement import Placement
from q3e_local.vectors import Vectors


@dataclass(frozen=True)
class ServiceRequest:
    """A request in no dialect. An input is a text, or token ids, which get the end token if they lack it."""

    model: str  # a name as the client sent it: a tag, an alias, a query alias
    inputs: tuple[str | tuple[int, ...], ...]
    kind: Kind | None = None  # None: the kind that the name stands for, mostly a document
    task: str | None = None
    instruction: str | None = None
    dim: int | None = None
    truncate: bool = True
    max_tokens: int | None = None
    keep_alive_s: float | None = None  # None: leave as it is; 0: unload afterwards; below 0: never unload


@dataclass(frozen=True)
class ServiceResult:
    """`vectors` float32 (n_inputs, dim), rows of length 1, in the order of the inputs."""

    vectors: Vectors
    prompt_tokens: tuple[int, ...]
    truncated: tuple[bool, ...]
    model: str  # the full name of the model that answered
    space: str
    load_s: float  # until the model was ready


@dataclass(frozen=True)
class RankServiceRequest:
    """A question and documents, in no dialect. `max_document_tokens` cuts each document further."""

    model: str
    query: str
    documents: tuple[str, ...]
    task: str | None = None
    instruction: str | None = None
    truncate: bool = True
    max_tokens: int | None = None  # of prompt, question and document together
    max_document_tokens: int | None = None
    keep_alive_s: float | None = None  # as in ServiceRequest


@dataclass(frozen=True)
class RankResult:
    """For each document, in the order of the documents: the logit of "yes" less that of "no", and its tokens."""

    logits: tuple[float, ...]
    prompt_tokens: tuple[int, ...]
    truncated: tuple[bool, ...]
    model: str  # the full name of the model that answered
    load_s: float  # until the model was ready


@dataclass(frozen=True)
class Described:
    """A model, and a request's options as they apply to it."""

    model: str  # its full name
    digest: str
    n_embd: int
    n_ctx_max: int
    added_tokens: tuple[str, ...]
    resolved: ResolvedOptions


@dataclass(frozen=True)
class LoadedModel:
    """A model in memory. `expires_at` is seconds since the epoch; None means never."""

    name: str
    kind: ModelKind
    size_bytes: int
    n_ctx: int
    expires_at: float | None
    placement: Placement  # of its layers, and memory of its devices as they were asked last
    kernels: Kernels  # of its process

    @property
    def gpu_bytes(self) -> int:
        """What of `size_bytes` is memory that GPUs compute with."""
        return min(self.size_bytes, self.placement.n_bytes)


@dataclass(frozen=True)
class Stopped:
    """What became of a model that was to be unloaded. A model at work is gone once it has finished."""

    model: str  # its full name
    was_loaded: bool
    is_gone: bool


class Service(Protocol):
    """Everything that a dialect needs. Errors are those of q3e_local.errors and of server.errors."""

    async def embed(self, request: ServiceRequest) -> ServiceResult:
        """Load the model if need be, then embed. Cancelling the call frees its place in the queue.

        Raises what loading raises, OptionError, TextError with the place of the input, and errors of server.errors.
        """

    async def rank(self, request: RankServiceRequest) -> RankResult:
        """Read the question with each document. Cancelling the call frees its place in the queue.

        Raises what `embed` raises, the TextError with the place of the document.
        """

    async def check(self, model: str, kind: ModelKind) -> None:
        """Raise what `embed` or `rank` raises of a name: that of no model here, or of one of another kind.

        Loads nothing, and reads no more than the header of a model's file.
        """

    async def describe(self, request: ServiceRequest) -> Described:
        """Load the model if need be, and hold the request's options to it as `embed` does. Reads no inputs."""

    async def load(self, model: str, keep_alive_s: float | None) -> None:
        """Load without embedding."""

    async def unload(self, model: str) -> None:
        """Free a model's memory, at once or when the last request that uses it ends. Does not wait for that end."""

    async def stop(self, model: str, wait_s: float) -> Stopped:
        """Unload, and wait up to `wait_s` until the memory is free. Raises ModelError for a name without a model."""

    async def tokenize(self, model: str, text: str, *, add_end_token: bool, kind: Kind | None = None) -> list[int]:
        """The ids of a text that is normalized first, with special-token text parsed.

        With a `kind`, the text has the prompt of this kind before it, as in `embed`.
        """

    async def count_tokens(self, model: str, texts: tuple[str, ...]) -> list[int]:
        """How many ids `tokenize` gives for each text, the end token left out. Raises TextError with its place."""

    async def detokenize(self, model: str, ids: list[int]) -> str:
        """The text of these ids, special tokens written out. Raises OptionError for an id that no token has."""

    async def pieces(self, model: str, ids: list[int]) -> list[bytes]:
        """The bytes of each of these ids, which may be parts of a character. Raises OptionError as `detokenize`."""

    async def warm_up(self, model: str) -> None:
        """Compute first batches where a GPU computes, whose driver may compile programs then. Raises as `load`."""

    async def look(self) -> None:
        """Ask the GPUs of what is in memory for what they have free now, for at most a second."""

    def loaded(self) -> list[LoadedModel]:
        """What is in memory, longest remaining time first."""

    async def pull(self, name: str, progress: Callable[[Any], None]) -> None:
        """Bring a model here, as `q3e-local pull`; `progress` gets pull.Step from another thread."""


class RunningService(Service, Protocol):
    """A service for a whole server, which also reads its counters and closes it."""

    def counters(self) -> dict[str, float]:
        """Counts since the start, by the names that http/metrics.py has."""

    async def close(self) -> None:
        """Finish the requests that run, within a few seconds, refuse the rest, and free all memory."""
