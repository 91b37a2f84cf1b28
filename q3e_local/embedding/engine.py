"""The seam between texts and a model: ids in, pooled vectors out, or of a reranker logits.

Knows nothing of llama.cpp. The real engine, a worker process and the tests' fake all look like `Engine`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from q3e_local.errors import OptionError
from q3e_local.gguf.model_kind import ModelKind

NO_DEVICE = "none"
_NO_DEVICE = {NO_DEVICE, "cpu"}  # as people say it, in any case
KvType = Literal["f16", "q8_0"]


@dataclass(frozen=True)
class EngineConfig:
    """How to run the model. None means: chosen for this machine, as `q3e_local.llama.settings.defaults` says."""

    n_threads: int | None = None
    n_gpu_layers: int | None = None  # the last so many layers; None: as many as fit into the memory of a GPU
    device: str | None = None  # llama.cpp's names of GPUs, with commas between them, or `none` or `cpu`; None: chosen
    n_ctx_max: int | None = None  # tokens of the longest text; None: what the file says
    n_batch: int | None = None  # tokens computed at once; a large batch computes attention between texts in vain
    kv_type: KvType = "f16"  # of keys and values: q8_0 takes about half the memory, and changes vectors a little
    n_seq_max: int = 64  # texts in a batch; each costs a row of logits (0.6 MB) in llama.cpp's buffers
    tap: bool = True  # read the hidden state before the vocabulary projection
    self_tuning: bool = False  # try other settings in the first batches of real work, and keep the fastest

    def __post_init__(self) -> None:
        limits = {
            "n_threads": (1, 1024),
            "n_gpu_layers": (0, 1_000_000),
            "n_ctx_max": (1, 1_000_000_000),
            "n_batch": (1, 65_536),
            "n_seq_max": (1, 256),  # LLAMA_MAX_SEQ: llama.cpp asserts above it
        }
        for name, (low, high) in limits.items():
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise OptionError(f"{name} must be between {low} and {high}, got {value}")
        if self.kv_type not in get_args(KvType):
            raise OptionError(
                f"kv_type must be one of {', '.join(get_args(KvType))}, got {self.kv_type!r}", "kv_type"
            )
        if self.device is not None and not all(name.strip() for name in self.device.split(",")):
            raise OptionError(
                f"device must be names with commas between them, or {NO_DEVICE}, got {self.device!r}", "device"
            )
        if self.devices == () and self.n_gpu_layers:
            raise OptionError(
                f"n_gpu_layers must be 0 where device is {self.device}, got {self.n_gpu_layers}", "n_gpu_layers"
            )

    @property
    def may_cache(self) -> bool:
        """Whether vectors may be kept for others: those by q8_0 are not what the model gives elsewhere."""
        return self.kv_type == "f16"

    @property
    def devices(self) -> tuple[str, ...] | None:
        """The names of `device`; empty: none, and the CPU computes; None: chosen."""
        return named_devices(self.device)


def named_devices(device: str | None) -> tuple[str, ...] | None:
    """The names in an option `device`; empty for `none` and `cpu`; None: chosen."""
    if device is None:
        return None
    names = tuple(name.strip() for name in device.split(","))
    return () if len(names) == 1 and names[0].lower() in _NO_DEVICE else names


class Engine(Protocol):
    """A loaded model. Safe to call from several threads: calls wait for each other, long texts let others in."""

    digest: str  # fingerprint of the model file, hex
    kind: ModelKind
    n_embd: int  # numbers that `decode` answers for a sequence: of a pooled vector, or 1 of a reranker
    n_ctx_max: int  # tokens of the longest sequence, end token included
    eos_id: int  # the end token, whose vector is the embedding
    added_tokens: tuple[str, ...]  # texts that are a single token wherever they stand: `<think>` and the like

    @property
    def n_batch(self) -> int:
        """Tokens that a `decode` computes best at once. May change while the engine works."""

    @property
    def n_seq_max(self) -> int:
        """The most sequences of a `decode`."""

    @property
    def n_keepable(self) -> int:
        """The most tokens of a sequence whose vector, computed so far, a cache may keep.

        Less than `n_ctx_max` once keys and values were in q8_0, given or for want of memory. It never rises again.
        """

    def tokenize(self, text: str) -> list[int]:
        """The ids of a normalized text, without the end token; the text of a special token becomes that token."""

    def pieces(self, ids: Sequence[int]) -> list[bytes]:
        """The bytes of each of these ids: several ids may share a character."""

    def decode(
        self, sequences: Sequence[Sequence[int]], n_prefix: Sequence[int] | None = None
    ) -> NDArray[np.float32]:
        """Pooled vectors (n, n_embd): a row for each sequence of ids, read at its last id.

        The last id of a text is the end token. A reranker's row is one number: the logit of "yes" less that of "no".
        `n_prefix` says for each sequence how many of its first ids other sequences begin with too, of this call or of
        a later call: an engine may compute them once. `n_prefix` changes no vector, and a shared prefix counts once
        against `n_batch`. Every row is finite, and a vector is not zero.

        Raises BadVectorError with the place in `sequences` of a sequence that the model has no vector for,
        NotEnoughMemoryError before allocating, EngineError when llama.cpp fails.
        """

    def close(self) -> None:
        """Free everything. Closing twice is fine; any other call afterwards raises EngineError."""
