"""The native contexts of one model: one for batches, and one for texts longer than a batch, made when such come.

Knows sizes and memory; leaves threads to engine.py and the reading of vectors to pooling_context.py.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

import numpy as np
from numpy.typing import NDArray

from q3e_local import machine
from q3e_local.errors import BadVectorError, EngineError, NotEnoughMemoryError
from q3e_local.gguf.model_file import ModelInfo
from q3e_local.llama import binding
from q3e_local.llama.pooling_context import Counts, PoolingContext
from q3e_local.llama.settings.defaults import N_BATCH, Settings
from q3e_local.llama.settings.memory import ContextPlan, for_batches, for_long, grown, padded
from q3e_local.wording.counts import size

logger = logging.getLogger(__name__)
# How a model runs, and why: what --explain shows.
explaining = logging.getLogger("q3e_local.settings")

# So many batches go by before the context of long texts is freed, gigabytes at 32K tokens: a long text may be near.
_SHORT_BEFORE_FREEING = 16

_NEEDS = "needs {} beside the model, {} are free"
_TEXT = "a text of {} tokens " + _NEEDS + "; cut the text, or close other programs"
_BATCH = "a batch of {} tokens " + _NEEDS + "; take a smaller model or batch, or close other programs"


@contextmanager
def refusals(what: str) -> Iterator[None]:
    """Say as an EngineError that llama.cpp cannot do `what`."""
    try:
        yield
    except binding.NativeError as error:
        raise EngineError(f"llama.cpp cannot {what}: {error}") from None


class Contexts:
    """Makes, remakes and frees contexts. `on_gpu`: all keys and values are on a GPU, whose memory llama.cpp checks.

    Raises NotEnoughMemoryError before allocating, EngineError where llama.cpp refuses.
    """

    def __init__(
        self,
        model: binding.Weights,
        info: ModelInfo,
        settings: Settings,
        n_seq_max: int,
        tap: bool,
        on_gpu: bool,
        between: Callable[[], None],
    ) -> None:
        """`between` is called between the layers of a long text, and may compute with `batch`; not if `on_gpu`."""
        self.counts = Counts()
        self._model, self._info, self._settings = model, info, settings
        self._n_seq_max, self._tap, self._on_gpu = n_seq_max, tap, on_gpu
        # A GPU would have to stop after each layer, to save others a wait for one piece: far less than a second.
        self._between = None if on_gpu else between
        self._long: PoolingContext | None = None
        self._n_short = 0  # batches in a row without a long text
        self.batch = self._made_for_batches(self._batch_plan())

    def use(self, settings: Settings) -> None:
        """Go on with other threads or batches."""
        before, self._settings = self._settings, settings
        plan = self._batch_plan()
        if plan == self.batch.plan:
            for context in filter(None, (self.batch, self._long)):
                context.set_threads(settings.n_threads)
            return
        try:
            batch = self._made_for_batches(plan)
        except Exception:
            self._settings = before
            raise
        self.free()
        self.batch = batch

    def passed(self, *, long_at_work: bool) -> None:
        """A batch comes: free the context of long texts where no long text came for a while."""
        self._n_short = 0 if long_at_work else self._n_short + 1
        if self._n_short > _SHORT_BEFORE_FREEING:
            self._free_long()

    def long(self, n_tokens: int, n_ctx_max: int) -> PoolingContext:
        """The context for long texts; made anew where `n_tokens` do not fit it."""
        self._n_short = 0
        old = self._long
        if old is not None and n_tokens <= old.plan.n_ctx:
            return old
        freed = old.plan.n_bytes(self._info) if old is not None else 0
        wanted = grown(old.plan.n_ctx if old is not None else 0, n_tokens, n_ctx_max)
        plan = self._long_plan(n_tokens, wanted, freed)
        self._free_long()
        self._long = self._made(plan, self._between)
        return self._long

    def sounded(
        self,
        context: PoolingContext,
        vectors: NDArray[np.float32],
        sequences: Sequence[Sequence[int]],
        go_on: Callable[[], None],
    ) -> NDArray[np.float32]:
        """The vectors, after each that is NaN, infinite or zero was computed once more.

        Raises BadVectorError with the place of a sequence whose vector is no better then.
        """
        bad = np.flatnonzero(~_sound(vectors)).tolist()
        if bad:
            context.wipe()
        for row in bad:
            vectors[row] = self._once_more(sequences[row], go_on)
            if not _sound(vectors[row : row + 1]).all():
                raise BadVectorError(
                    f"the model answers NaN, infinity or zero for this text of {len(sequences[row])} tokens; "
                    "try another quantization, or leave the text out",
                    row,
                )
        return vectors

    def _once_more(self, ids: Sequence[int], go_on: Callable[[], None]) -> NDArray[np.float32]:
        """A vector (n_embd,), alone and with f32 keys and values: f16 may overflow, or a neighbour's NaN spread."""
        logger.warning("no usable vector for a text of %d tokens; trying it alone with f32 KV", len(ids))
        # Its attention takes memory for each token of a piece with each token of the text.
        plan = for_long(min(self._settings.n_batch, N_BATCH), padded(len(ids)), self._tap, exact=True)
        self._afford(plan, _TEXT, len(ids))
        context = self._made(plan)
        try:
            with refusals("compute this text"):
                vector: NDArray[np.float32] = context.decode([ids], go_on=go_on)[0]
        finally:
            context.free()
        return vector

    def free(self) -> None:
        self.batch.free()
        self._free_long()

    def _free_long(self) -> None:
        if self._long is not None:
            self._long.free()
            self._long = None

    def _batch_plan(self) -> ContextPlan:
        return for_batches(self._settings.n_batch, self._n_seq_max, self._tap)

    def _made_for_batches(self, plan: ContextPlan) -> PoolingContext:
        self._afford(plan, _BATCH, plan.n_batch)
        return self._made(plan)

    def _long_plan(self, n_tokens: int, wanted: int, freed: int) -> ContextPlan:
        """The first of these that memory is enough for: with room to grow into; without; in smaller pieces."""
        n_batch, tight = self._settings.n_batch, padded(n_tokens)
        for n_ctx in (wanted, tight):
            plan = for_long(n_batch, n_ctx, self._tap)
            with suppress(NotEnoughMemoryError):
                self._afford(plan, _TEXT, n_tokens, freed)
                return plan
        plan = for_long(min(n_batch, N_BATCH), tight, self._tap)
        self._afford(plan, _TEXT, n_tokens, freed)
        explaining.info("a text of %d tokens: pieces of %d tokens (for want of memory)", n_tokens, plan.n_batch)
        return plan

    def _made(self, plan: ContextPlan, between: Callable[[], None] | None = None) -> PoolingContext:
        with refusals(f"make a context of {plan.n_ctx} tokens"):
            return PoolingContext(self._model, self._info, plan, self._settings.n_threads, self.counts, between)

    def _afford(self, plan: ContextPlan, message: str, n_tokens: int, freed: int = 0) -> None:
        """Raise NotEnoughMemoryError with this message where there is no memory for the plan."""
        needed, available = plan.n_bytes(self._info), machine.available_memory() + freed
        if needed > available and not self._on_gpu:
            raise NotEnoughMemoryError(message.format(n_tokens, size(needed), size(available)))


def _sound(vectors: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Which rows are finite and not zero."""
    sound: NDArray[np.bool_] = np.logical_and(np.isfinite(vectors).all(axis=1), vectors.any(axis=1))
    return sound
