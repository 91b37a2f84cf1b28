"""Texts longer than a batch, one after the other, in pieces: `LongTexts`.

Between two pieces, and between their layers, batches of other callers are computed. Where a GPU is refused memory for
a text, the text begins again with fewer layers there. Knows turns and pieces; leaves contexts to contexts.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from q3e_local.errors import GpuMemoryError
from q3e_local.llama.contexts import Contexts, refusals
from q3e_local.llama.loading import LoadedModel
from q3e_local.llama.owner import InTurn, Owner
from q3e_local.llama.pooling_context import PoolingContext

T = TypeVar("T")


class LoadedAnewError(Exception):
    """The model was loaded anew, and what was begun with a context of it begins again."""


class LongTexts:
    """Computes them on the owner's thread. `turn` is held by the text that is computed."""

    def __init__(self, loaded: LoadedModel, owner: Owner, n_ctx_max: int) -> None:
        self.turn = InTurn()
        self._loaded, self._owner, self._n_ctx_max = loaded, owner, n_ctx_max

    def decode(self, ids: Sequence[int], on_piece: Callable[[int], None]) -> NDArray[np.float32]:
        """The vector (1, n_embd) of one text. `on_piece` is called with the tokens of each piece that is done."""
        with self.turn:
            while True:
                try:
                    context, at = self._owner.do(self._begin, ids)
                    while at < len(ids):
                        end = self._owner.long(self._piece, context, ids, at)
                        on_piece(end - at)
                        at = end
                    return self._owner.do(self._end, context, ids)
                except LoadedAnewError:  # and the context of the text is gone
                    continue

    # On the owner's thread from here on.

    def _begin(self, ids: Sequence[int]) -> tuple[PoolingContext, int]:
        def begun() -> tuple[PoolingContext, int]:
            context = self._loaded.ready().long(len(ids), self._n_ctx_max)
            return context, context.begin(ids)

        return self._or_anew(begun, ids)

    def _piece(self, context: PoolingContext, ids: Sequence[int], start: int) -> int:
        def computed() -> int:
            self._same(context)
            return context.piece(ids, start, shared=self._owner.is_shared)

        return self._or_anew(computed, ids)

    def _end(self, context: PoolingContext, ids: Sequence[int]) -> NDArray[np.float32]:
        def sounded() -> NDArray[np.float32]:
            contexts = self._same(context)
            return contexts.sounded(context, context.taken(1), [ids], self._owner.go_on)

        return self._or_anew(sounded, ids)

    def _same(self, context: PoolingContext) -> Contexts:
        """The contexts. Raises LoadedAnewError where a batch was refused memory since this one was made."""
        contexts = self._loaded.ready()
        if context is not contexts.latest_long:
            raise LoadedAnewError
        return contexts

    def _or_anew(self, step: Callable[[], T], ids: Sequence[int]) -> T:
        """What a step answers. Raises LoadedAnewError after it loaded the model with fewer layers on the GPU."""
        self._owner.go_on()
        try:
            with refusals("compute this text", on_gpu=self._loaded.placement.on_gpu):
                return step()
        except GpuMemoryError as error:
            self._loaded.fewer_layers(error, len(ids))
            raise LoadedAnewError from None
