"""The native contexts of one model: one for batches, and one for texts longer than a batch, made when such come.

Knows sizes and memory; leaves threads to engine.py and the reading of vectors to pooling_context.py.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from q3e_local import machine
from q3e_local.embedding.engine import KvType
from q3e_local.errors import BadVectorError, EngineError, GpuMemoryError, NotEnoughMemoryError
from q3e_local.gguf.model_file import ModelInfo
from q3e_local.llama import binding
from q3e_local.llama.context_memory import ContextMemory
from q3e_local.llama.pooling_context import Counts, PoolingContext
from q3e_local.llama.settings.defaults import N_BATCH, Settings
from q3e_local.llama.settings.memory import (
    ContextPlan,
    batch_plans,
    for_batches,
    for_long,
    given_up,
    grown,
    long_plans,
    padded,
    saving,
)
from q3e_local.llama.settings.placement import Device, Placement

logger = logging.getLogger(__name__)
# How a model runs, and why: what --explain shows.
explaining = logging.getLogger("q3e_local.settings")

# So many batches go by before the context of long texts is freed, gigabytes at 32K tokens: a long text may be near.
_SHORT_BEFORE_FREEING = 16

_TEXT = "a text of {} tokens needs {}; cut the text, or close other programs"
_BATCH = "a batch of {} tokens needs {}; take a smaller model or batch, or close other programs"
_AFTER_TAP = (
    "llama.cpp computes on behind the hidden-state tap (%s), as that is on another device: vectors are right, and "
    "take longer than they need to"
)


@contextmanager
def refusals(what: str, *, on_gpu: bool) -> Iterator[None]:
    """Say as an EngineError that llama.cpp cannot do `what`; as a GpuMemoryError where it got no memory of a GPU."""
    try:
        yield
    except binding.NativeError as error:
        kind = GpuMemoryError if on_gpu and error.is_memory else EngineError
        raise kind(f"llama.cpp cannot {what}: {error}") from None


class Contexts:
    """Makes, remakes and frees contexts; where a GPU has too little memory, such as take less of it.

    Raises NotEnoughMemoryError before allocating, or where llama.cpp is refused memory; EngineError where llama.cpp
    refuses.
    """

    def __init__(
        self,
        model: binding.Weights,
        info: ModelInfo,
        settings: Settings,
        n_seq_max: int,
        tap: bool,
        placement: Placement,
        between: Callable[[], None],
        *,
        kv_type: KvType = "f16",
    ) -> None:
        """`between` is called between the layers of a long text, unless a GPU has all, and may compute with `batch`.

        Where memory of a GPU is short, batches have fewer tokens than the settings say.
        """
        self.counts = Counts()
        self.n_keepable = info.n_ctx_train  # tokens of a text: longer ones were computed with keys and values in q8_0
        self._model, self._info, self._settings = model, info, settings
        self._n_seq_max, self._tap, self._kv_type = n_seq_max, tap, kv_type
        self._memory = ContextMemory(info, placement)
        self._placement = placement
        # A GPU would have to stop after each layer, to save others a wait for one piece: far less than a second.
        self._between = None if placement.all_on_gpu else between
        self._long: PoolingContext | None = None
        self._n_short = 0  # batches in a row without a long text
        self._less_from = 0  # cells, from which on `_long` must do with less than was wanted; 0: it has all
        self._said: set[str] = set()
        self.batch = self._made_for_batches(self._batch_plan(), may_shrink=True)

    def use(self, settings: Settings) -> None:
        """Go on with other threads or batches, which do not get smaller for want of memory."""
        before, self._settings = self._settings, settings
        plan = self._batch_plan()
        if (plan.n_batch, plan.n_seq_max) == (self.batch.plan.n_batch, self.batch.plan.n_seq_max):
            for context in filter(None, (self.batch, self._long)):
                context.set_threads(self._n_threads(context.plan))
            return
        try:
            batch = self._made_for_batches(plan, may_shrink=False)
        except Exception:
            self._settings = before
            raise
        self.free()
        self.batch = batch

    def passed(self, *, long_at_work: bool) -> None:
        """A batch comes: free the context of long texts where no long text came for a while."""
        self._n_short = 0 if long_at_work else self._n_short + 1
        if self._n_short > _SHORT_BEFORE_FREEING:
            self.free_long()

    def long(self, n_tokens: int, n_ctx_max: int) -> PoolingContext:
        """The context for long texts; made anew where `n_tokens` do not fit it, or may have a better one."""
        self._n_short = 0
        old = self._long
        fits = old is not None and n_tokens <= old.plan.n_ctx
        if old is not None and fits and padded(n_tokens) >= self._less_from:
            return old
        n_ctx = grown(old.plan.n_ctx if old is not None and not fits else 0, n_tokens, n_ctx_max)
        wanted = for_long(self._settings.n_batch, n_ctx, self._tap, kv_type=self._kv_type)
        plans = long_plans(wanted, n_tokens, on_gpu=self._placement.on_gpu)
        self._long = self._first(plans, _TEXT, n_tokens, self._between, replaces_long=True)
        self._tell(f"a text of {n_tokens} tokens", wanted, self._long.plan)
        self._less_from = padded(n_tokens) if _does_with_less(self._long.plan, wanted) else 0
        self._keep_none_above(self._settings.n_batch, self._long.plan)
        return self._long

    def check_elsewhere(self, n_tokens: int, places: Iterable[tuple[Placement, Sequence[Device]]]) -> None:
        """Raise NotEnoughMemoryError where there is memory for a text of `n_tokens` in none of these `places`.

        A place is where the layers could be, with its devices as they would be then.
        """
        wanted, lack = for_long(self._settings.n_batch, padded(n_tokens), self._tap, kv_type=self._kv_type), None
        for placement, here in places:
            memory = ContextMemory(self._info, placement, here)
            for plan in long_plans(wanted, n_tokens, on_gpu=placement.on_gpu):
                if (lack := memory.lack(plan)) is None:
                    return
        assert lack is not None
        raise NotEnoughMemoryError(_TEXT.format(n_tokens, lack.text))

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
        if self.counts.after_tap and _AFTER_TAP not in self._said:
            self._said.add(_AFTER_TAP)
            logger.warning(_AFTER_TAP, b", ".join(dict.fromkeys(self.counts.after_tap)).decode("ascii", "replace"))
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
        plans = [plan, *saving(plan)] if self._placement.on_gpu else [plan]
        context = self._first(plans, _TEXT, len(ids))
        try:
            with refusals("compute this text", on_gpu=self._placement.on_gpu):
                vector: NDArray[np.float32] = context.decode([ids], go_on=go_on)[0]
        finally:
            context.free()
        return vector

    @property
    def latest_long(self) -> PoolingContext | None:
        """The context for long texts, while there is one."""
        return self._long

    def free(self) -> None:
        self.batch.free()
        self.free_long()

    def free_long(self) -> None:
        """Free the context for long texts."""
        if self._long is not None:
            self._long.free()
            self._long = None

    def _batch_plan(self) -> ContextPlan:
        return for_batches(self._settings.n_batch, self._n_seq_max, self._tap, self._kv_type)

    def _made_for_batches(self, wanted: ContextPlan, *, may_shrink: bool) -> PoolingContext:
        plans = batch_plans(wanted, on_gpu=self._placement.on_gpu, may_shrink=may_shrink)
        made = self._first(plans, _BATCH, wanted.n_batch, is_planned=True)
        self._tell("batches", wanted, made.plan)
        self._keep_none_above(0, made.plan)
        return made

    def _keep_none_above(self, n_tokens: int, plan: ContextPlan) -> None:
        """Longer texts are computed by this plan, and no cache may keep their vectors where q8_0 made them coarse."""
        if plan.kv_type != "f16":
            self.n_keepable = min(self.n_keepable, n_tokens)

    def _first(
        self,
        plans: Iterable[ContextPlan],
        message: str,
        n_tokens: int,
        between: Callable[[], None] | None = None,
        *,
        replaces_long: bool = False,
        is_planned: bool = False,
    ) -> PoolingContext:
        """The first of these contexts that there is memory for.

        Raises the error of the last, as `message` has it; of the last that a GPU refused, if it refused any, as fewer
        layers there may help.
        """
        refused: list[NotEnoughMemoryError] = []
        for plan in plans:
            replaced = self._long.plan if replaces_long and self._long is not None else None
            lack = self._memory.lack(plan, replaced, is_planned=is_planned)
            if lack is not None:
                kind = GpuMemoryError if lack.of_gpu else NotEnoughMemoryError
                refused.append(kind(message.format(n_tokens, lack.text)))
                continue
            if replaces_long:
                self.free_long()
            try:
                with refusals(f"make a context of {plan.n_ctx} tokens", on_gpu=self._placement.on_gpu):
                    return PoolingContext(self._model, self._info, plan, self._n_threads(plan), self.counts, between)
            except (GpuMemoryError, EngineError) as error:
                if not self._placement.on_gpu:
                    raise
                # A driver does not always say that memory was the reason.
                refused.append(GpuMemoryError(f"{message.format(n_tokens, self._memory.needs(plan))} ({error})"))
        raise next((error for error in reversed(refused) if isinstance(error, GpuMemoryError)), refused[-1])

    def _n_threads(self, plan: ContextPlan) -> int:
        """Threads for a context. The default beside a GPU that has all layers is too few where the CPU attends."""
        is_default = self._settings.reasons["n_threads"].source == "default"
        return machine.physical_cores() if is_default and not plan.kv_on_gpu else self._settings.n_threads

    def _tell(self, what: str, wanted: ContextPlan, made: ContextPlan) -> None:
        """Say what was given up: a slower or less exact way is for the user, and once; the rest for --explain."""
        words = given_up(wanted, made)
        if not words:
            return
        of_gpu = " of a GPU" if self._placement.on_gpu else ""
        said = f"{what}: {words} (for want of memory{of_gpu})"
        if _does_with_less(made, wanted) and words not in self._said:
            self._said.add(words)
            logger.warning("%s", said)
        else:
            explaining.info("%s", said)


def _does_with_less(made: ContextPlan, wanted: ContextPlan) -> bool:
    """Whether keys and values are coarser than was wanted, or where they slow attention down."""
    return (made.kv_type, made.kv_on_gpu) != (wanted.kv_type, wanted.kv_on_gpu)


def _sound(vectors: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Which rows are finite and not zero."""
    sound: NDArray[np.bool_] = np.logical_and(np.isfinite(vectors).all(axis=1), vectors.any(axis=1))
    return sound
