"""llama.cpp as this project uses it: the only file that imports llama_cpp.

Thin handles around the C objects, each freed exactly once. Knows nothing of embeddings. Uses the low-level binding,
not the class `Llama`: its `embed` cuts the end token off long texts, and computes a row of the vocabulary for each
token.
"""

from __future__ import annotations

import ctypes
import re
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from q3e_local.embedding.engine import KvType
from q3e_local.llama.cuda_libraries import preload
from q3e_local.llama.native_log import NativeError as NativeError
from q3e_local.llama.native_log import NativeLog
from q3e_local.llama.waiting import sleep_soon

# Importing llama_cpp loads its libraries: these need NVIDIA's, and OpenMP's reads its settings at once.
preload()
sleep_soon()

import llama_cpp.llama_cpp  # noqa: E402

lib: Any = llama_cpp.llama_cpp

POOLING_NONE, POOLING_LAST = lib.LLAMA_POOLING_TYPE_NONE, lib.LLAMA_POOLING_TYPE_LAST

# With True, before a tensor is computed: whether it is wanted. With False, when it is computed: whether to go on.
EvalCallback = Callable[[int, bool], bool]

native_log = NativeLog()
# Kept for the life of the process: llama.cpp holds the pointer.
_log_callback = lib.llama_log_callback(native_log)
lib.llama_log_set(_log_callback, ctypes.c_void_p(0))
lib.llama_backend_init()

# Windows looks a function up in one library alone, and not in those that it depends on; it loads a library once.
_LIBRARIES = [lib._lib] + [
    lib.load_shared_library(name, lib._base_path) for name in ("ggml", "ggml-base") if sys.platform == "win32"
]

_KV_TYPES = {"f16": lib.GGML_TYPE_F16, "q8_0": lib.GGML_TYPE_Q8_0}
# What llama.cpp says where AUTO leaves it off: llama_context::resolve_fused_ops.
_NO_FLASH_ATTENTION = "Flash Attention not supported"


def function(name: str, result: Any, *arguments: Any) -> Any:
    """A function of ggml's, with the ctypes types of its result and its arguments.

    libllama finds it, which depends on ggml's libraries: a wheel has several files of a library, and a file that is
    opened by its path may be loaded a second time, with a second state. Raises AttributeError where this build has no
    function of this name.
    """
    native = _found(name)  # a new object, so that the binding's types stay as they are
    native.restype, native.argtypes = result, arguments
    return native


def address(name: str) -> int:
    """Where a function of ggml's lies. Raises AttributeError where this build has no function of this name."""
    return int(ctypes.cast(_found(name), ctypes.c_void_p).value or 0)


def _found(name: str) -> Any:
    for library in _LIBRARIES:
        with suppress(AttributeError):
            return library[name]
    raise AttributeError(f"this build of llama.cpp has no function {name}")


def can_offload() -> bool:
    """Whether this build of llama.cpp can put layers on a GPU; whether there is one, devices.py says."""
    return bool(lib.llama_supports_gpu_offload())


def system_info() -> str:
    """llama.cpp's own line about CPU features and build flags."""
    return bytes(lib.llama_print_system_info() or b"").decode("utf-8", "replace")


def features() -> frozenset[str]:
    """What llama.cpp uses of this machine, as its build allows: AVX2, AVX512, NEON and the like."""
    return frozenset(re.findall(r"(\w+) = 1\b", system_info()))


def version() -> str:
    """The binding's version, which is that of its llama.cpp too."""
    return str(llama_cpp.__version__)


def build() -> tuple[tuple[str, int, int], ...]:
    """The libraries of this build: names, sizes and dates, which differ in another build."""
    files = ((file.name, file.stat()) for file in sorted(Path(lib._base_path).iterdir()) if file.is_file())
    return tuple((name, stat.st_size, stat.st_mtime_ns) for name, stat in files)


class Weights:
    """The weights. Free it after every Context made of it."""

    def __init__(
        self, path: bytes, n_gpu_layers: int = 0, devices: Sequence[int] = (), no_alloc: bool = False
    ) -> None:
        """`n_gpu_layers` as llama.cpp counts them, the vocabulary projection as one, on these devices of ggml's.

        `no_alloc`: read no weights and allocate nothing, so that a Context only says in the log what it would take.
        """
        params = lib.llama_model_default_params()
        # Without layers there, llama.cpp would still send large products to a GPU that it sees, with their weights.
        # So it gets a list of devices, which has none then.
        self.on_gpu = n_gpu_layers > 0
        params.n_gpu_layers = n_gpu_layers
        self._devices = (ctypes.c_void_p * (len(devices) + 1))(*(devices if self.on_gpu else ()), None)
        params.devices = ctypes.cast(self._devices, ctypes.c_void_p)
        params.split_mode = lib.LLAMA_SPLIT_MODE_NONE if len(devices) == 1 else lib.LLAMA_SPLIT_MODE_LAYER
        params.no_alloc = no_alloc
        if no_alloc:
            params.load_mode = lib.LLAMA_LOAD_MODE_NONE
        # Repacked weights take twice the memory and were slower wherever that was measured: 0.5 to 0.7 times as fast
        # with AVX-512, 0.9 with AVX2. On a CPU with AMX they end the process where gcc 12 compiled llama.cpp, which
        # drops stores into the tile configuration (https://github.com/ggml-org/llama.cpp/pull/26954).
        params.use_extra_bufts = False
        native_log.begin()
        self.handle: Any = lib.llama_model_load_from_file(path, params)
        if not self.handle:
            raise native_log.failure("the model was refused")
        self._vocab = lib.llama_model_get_vocab(self.handle)

    def tokenize(self, text: bytes) -> list[int]:
        """Ids of the text, special-token text parsed, nothing added."""
        size = len(text) + 1  # a token is at least one byte
        ids = (lib.llama_token * size)()
        n_ids = lib.llama_tokenize(self._vocab, text, len(text), ids, size, False, True)
        if n_ids < 0:
            raise NativeError(f"llama_tokenize answered {n_ids} for {len(text)} bytes")
        tokens: list[int] = ids[:n_ids]
        return tokens

    def detokenize(self, ids: Sequence[int]) -> bytes:
        """The bytes of these ids, special tokens written out. Ids outside the vocabulary would end the process."""
        tokens, size = (lib.llama_token * len(ids))(*ids), 8 * len(ids) + 64
        while True:
            text = ctypes.create_string_buffer(size)
            n_bytes = int(lib.llama_detokenize(self._vocab, tokens, len(ids), text, size, False, True))
            if 0 <= n_bytes <= size:
                return text.raw[:n_bytes]
            size = max(-n_bytes, 2 * size)

    def free(self) -> None:
        if self.handle:
            lib.llama_model_free(self.handle)
            self.handle = None


class Batch:
    """The arrays a decode reads, allocated once for up to `n_tokens` tokens, each of up to `n_seq_max` sequences."""

    def __init__(self, n_tokens: int, n_seq_max: int) -> None:
        self.n_tokens = n_tokens
        self._batch = lib.llama_batch_init(n_tokens, 0, n_seq_max)
        self.ids = np.ctypeslib.as_array(self._batch.token, (n_tokens,))
        self.positions = np.ctypeslib.as_array(self._batch.pos, (n_tokens,))
        self.outputs = np.ctypeslib.as_array(self._batch.logits, (n_tokens,))
        self.n_seq_ids = np.ctypeslib.as_array(self._batch.n_seq_id, (n_tokens,))
        self._seq_ids = self._batch.seq_id
        self._freed = False

    def put(self, at: int, ids: Sequence[int], first_position: int, seq_ids: Sequence[int], output_last: bool) -> int:
        """Write a run of ids that these sequences have; returns where the next one goes."""
        end = at + len(ids)
        self.ids[at:end] = ids
        self.positions[at:end] = np.arange(first_position, first_position + len(ids))
        self.outputs[at:end] = 0
        self.n_seq_ids[at:end] = len(seq_ids)
        for i in range(at, end):
            for place, seq_id in enumerate(seq_ids):
                self._seq_ids[i][place] = seq_id
        if output_last:
            self.outputs[end - 1] = 1
        return end

    def filled(self, n_tokens: int) -> Any:
        self._batch.n_tokens = n_tokens
        return self._batch

    def free(self) -> None:
        if not self._freed:
            self._freed = True
            lib.llama_batch_free(self._batch)


class Context:
    """A KV cache and compute buffers for one model. Counts are the caller's to check: llama.cpp asserts.

    `exact`: keys and values are f32 and not `kv_type`, at the price of slow attention that takes more memory.
    `kv_on_gpu`: those of layers on a GPU are there too; else they are in RAM, and the CPU attends.
    """

    def __init__(
        self,
        model: Weights,
        *,
        n_ctx: int,
        n_batch: int,
        n_seq_max: int,
        n_threads: int,
        pooling: int,
        exact: bool = False,
        kv_type: KvType = "f16",
        kv_on_gpu: bool = True,
        eval_callback: EvalCallback | None = None,
    ) -> None:
        params = lib.llama_context_default_params()
        params.n_ctx, params.n_batch, params.n_ubatch, params.n_seq_max = n_ctx, n_batch, n_batch, n_seq_max
        params.n_threads = params.n_threads_batch = n_threads
        if exact:
            # Without flash attention: llama.cpp casts f32 keys and values to f16 for it.
            params.flash_attn_type = lib.LLAMA_FLASH_ATTN_TYPE_DISABLED
            params.type_k = params.type_v = lib.GGML_TYPE_F32
        else:
            params.type_k = params.type_v = _KV_TYPES[kv_type]
            # On a GPU llama.cpp knows best whether it has the kernel, and AUTO is its default. Where keys and values
            # are in RAM, the CPU attends, which has it; AUTO would take that for a GPU that lacks it.
            if not (model.on_gpu and kv_on_gpu):
                params.flash_attn_type = lib.LLAMA_FLASH_ATTN_TYPE_ENABLED
        params.offload_kqv = kv_on_gpu
        params.pooling_type = pooling
        params.embeddings = pooling != POOLING_NONE
        params.kv_unified = True
        if eval_callback is not None:
            # Without pooling only the flagged tokens are outputs: at most one a sequence.
            params.n_outputs_max = n_seq_max
            wrapped = eval_callback
            self._eval = lib.ggml_backend_sched_eval_callback(lambda tensor, ask, _: wrapped(tensor, ask))
            params.cb_eval = self._eval
        native_log.begin()
        self._handle: Any = lib.llama_init_from_model(model.handle, params)
        if not self._handle:
            raise native_log.failure("the context was refused")
        self.flash_attention = not exact and not native_log.has_said(_NO_FLASH_ATTENTION)
        self.n_ctx = int(lib.llama_n_ctx(self._handle))

    def set_threads(self, n_threads: int) -> None:
        """How many threads the next decode uses. It changes no vector."""
        lib.llama_set_n_threads(self._handle, n_threads, n_threads)

    def clear(self, zero: bool = False) -> None:
        """Forget every sequence; with `zero`, also what the free cells still hold."""
        lib.llama_memory_clear(lib.llama_get_memory(self._handle), zero)

    def cut(self, seq_id: int, n_tokens: int) -> None:
        """Forget what a sequence has from position `n_tokens` on."""
        lib.llama_memory_seq_rm(lib.llama_get_memory(self._handle), seq_id, n_tokens, -1)

    def share(self, seq_id: int, other: int, n_tokens: int) -> None:
        """Let another sequence begin with the first `n_tokens` of this one; they are not copied."""
        lib.llama_memory_seq_cp(lib.llama_get_memory(self._handle), seq_id, other, 0, n_tokens)

    def state_size(self, seq_id: int) -> int:
        """Bytes of a sequence's state."""
        return int(lib.llama_state_seq_get_size(self._handle, seq_id))

    def state(self, seq_id: int) -> NDArray[np.uint8]:
        """A copy of a sequence's keys and values."""
        state = np.empty(self.state_size(seq_id), np.uint8)
        pointer = state.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))
        if lib.llama_state_seq_get_data(self._handle, pointer, state.nbytes, seq_id) != state.nbytes:
            raise native_log.failure(f"the state of sequence {seq_id} cannot be read")
        return state

    def set_state(self, seq_id: int, state: NDArray[np.uint8]) -> None:
        """Give a sequence, empty so far, keys and values that `state` gave."""
        pointer = state.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))
        if lib.llama_state_seq_set_data(self._handle, pointer, state.nbytes, seq_id) != state.nbytes:
            raise native_log.failure(f"the state of sequence {seq_id} cannot be set")

    def decode(self, batch: Any) -> None:
        status = lib.llama_decode(self._handle, batch)
        if status != 0:
            raise native_log.failure(f"llama_decode answered {status}")

    def pooled(self, seq_id: int, n_embd: int) -> NDArray[np.float32]:
        """What llama.cpp's own pooling left for a sequence, (n_embd,)."""
        pointer = lib.llama_get_embeddings_seq(self._handle, seq_id)
        if not pointer:
            raise NativeError(f"llama.cpp has no pooled vector for sequence {seq_id}")
        return np.ctypeslib.as_array(pointer, (n_embd,)).copy()

    def free(self) -> None:
        if self._handle:
            lib.llama_free(self._handle)
            self._handle = None
