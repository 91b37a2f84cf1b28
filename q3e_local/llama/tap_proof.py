"""The proof of the hidden-state tap: it must give the vectors that llama.cpp's own pooling gives.

Knows what the result depends on; leaves both ways to a vector to pooling_context.py.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np

from q3e_local.errors import GpuMemoryError
from q3e_local.files import is_proved, note_proved
from q3e_local.gguf.model_file import ModelInfo
from q3e_local.llama import binding
from q3e_local.llama.pooling_context import TAPPED, PoolingContext
from q3e_local.llama.settings.memory import ContextPlan

logger = logging.getLogger(__name__)

_REPEATED_BYTES = 64 << 20  # the tap of a smaller model is proved at each load: that is quick


def tap_is_proved(model: binding.Weights, info: ModelInfo, n_threads: int, place: str, kernels: str | None) -> bool:
    """Whether the tap is right. Proved once for all that decides it: the proof takes half a second for 4B.

    `place` says which devices have how many of the layers. Raises GpuMemoryError where a GPU has no memory for
    the proof, which says nothing about the tap.
    """
    facts = (info.digest, TAPPED, binding.build(), sorted(binding.features()), place, kernels)
    is_kept = info.size_bytes >= _REPEATED_BYTES
    if is_kept and is_proved(*facts):
        return True
    texts = [[*model.tokenize(text), info.eos_id] for text in (b"one", b"two words")]
    wrong = tap_agrees(model, info, n_threads, texts)
    if wrong is not None:
        logger.warning("the hidden-state tap does not work here (%s); using the slower pooled path", wrong)
        return False
    if is_kept:
        note_proved(*facts)
    return True


def tap_agrees(
    model: binding.Weights, info: ModelInfo, n_threads: int, sequences: Sequence[Sequence[int]]
) -> str | None:
    """What is wrong with the tap's vectors; None where they are those of llama.cpp's pooling.

    Several short sequences in one batch, so that a wrong order of rows shows too.
    """
    n_batch = sum(len(ids) for ids in sequences)
    vectors = []
    for tap in (True, False):
        plan = ContextPlan(256, n_batch, len(sequences), tap)
        context = None
        try:
            context = PoolingContext(model, info, plan, n_threads)
            vectors.append(context.decode(sequences).astype(np.float64))
        except binding.NativeError as error:
            if model.on_gpu and error.is_memory:
                raise GpuMemoryError(f"no memory on the GPU to prove the hidden-state tap: {error}") from None
            return str(error) if context is not None else f"no {'tapped' if tap else 'pooled'} context: {error}"
        finally:
            if context is not None:
                context.free()
    tapped, pooled = vectors
    norms = np.linalg.norm(tapped, axis=1) * np.linalg.norm(pooled, axis=1)
    cosines = (tapped * pooled).sum(axis=1) / np.maximum(norms, 1e-30)
    worst = float(cosines.min())
    return None if worst >= 0.9999 else f"cosine {worst:.5f} to the pooled path"
