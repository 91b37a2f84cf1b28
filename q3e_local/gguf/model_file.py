"""Judge a model file: is it a Qwen3 embedding model or reranker that can run, and what must be known to run it.

Knows what this model family looks like in a GGUF; leaves reading the file to header.py.
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any

from q3e_local.errors import ModelFileError, WrongModelError
from q3e_local.gguf.header import Header, fingerprint, read_header
from q3e_local.gguf.model_kind import (
    CONTROL,
    HEAD,
    LAST,
    NONE,
    OUTPUT,
    RANK,
    USER_DEFINED,
    AnswerRows,
    ModelKind,
    answer_rows,
    stated_kind,
)

logger = logging.getLogger(__name__)

END_TEXT = "<|endoftext|>"
# A vocabulary of this family's real size has the end token here, before its 22 or 26 added tokens.
QWEN_END_ID = 151_643

POOLING = {0: "none", 1: "mean", 2: "cls", 3: "last", 4: "rank"}

# llama.cpp's llama_ftype, as general.file_type states it: the types that this family is published in or made into.
_FILE_TYPES = {
    0: "f32", 1: "f16", 2: "q4_0", 7: "q8_0", 8: "q5_0", 14: "q4_k_s", 15: "q4_k_m", 16: "q5_k_s", 17: "q5_k_m",
    18: "q6_k", 30: "iq4_xs", 32: "bf16",
}  # fmt: skip

# Keys under `qwen3.` that make llama.cpp compute otherwise, or abort where the value does not fit.
FOREIGN = (
    "attention.causal",
    "attention.key_length_swa",
    "attention.value_length_swa",
    "embedding_length_out",
    "expert_",
    "nextn_",
    "rope.dimension_count_swa",
    "rope.scal",
)
MAX_LAYERS = 512  # llama.cpp asserts above it
_OF_LAYER = re.compile(r"blk\.(\d{1,4})\.")

# A reranker that another converter took for a chat model states no pooling, and runs here all the same.
_POOLINGS: dict[ModelKind, tuple[int | None, ...]] = {"embedder": (LAST,), "reranker": (RANK, LAST, NONE, None)}

REMEDY = "get an official Qwen3-Embedding GGUF, or convert the checkpoint again"


@dataclass(frozen=True)
class ModelInfo:
    """A judged model file. Sizes carry llama.cpp's names; `digest` is the header's fingerprint."""

    path: Path
    name: str
    size_bytes: int
    digest: str
    n_embd: int
    n_layer: int
    n_head: int
    n_head_kv: int
    head_dim: int
    n_ff: int
    n_ctx_train: int
    n_vocab: int
    eos_id: int
    quantization: str
    added_tokens: tuple[str, ...]
    n_parameters: int = 0  # numbers in all tensors; 0 of a model that is only planned
    layer_bytes: tuple[int, ...] = ()  # weights of each layer; none of a model that is only planned
    output_bytes: int = 0  # of the vocabulary projection and its norm, which llama.cpp keeps beside the last layer
    answers: AnswerRows | None = None  # of a reranker

    @property
    def kind(self) -> ModelKind:
        return "embedder" if self.answers is None else "reranker"

    @property
    def kv_bytes_per_token(self) -> int:
        """Bytes of one f16 KV cell: 114,688 for 0.6B, 147,456 for 4B and 8B."""
        return self.n_layer * self.n_head_kv * self.head_dim * 2 * 2


def inspect(path: Path, kind: ModelKind | None = None) -> ModelInfo:
    """Read and judge the file, as the kind of model that the user says it is, or that it states itself.

    Raises ModelFileError for a file that is missing, broken or whose parts do not fit together, WrongModelError
    for a sound file of another kind: another architecture, a chat model, another pooling or end token.
    """
    header = read_header(path)
    kind = kind or stated_kind(header)
    _check_family(header, kind)
    eos_id = _end_token(header, kind)
    tokens = header.tokens
    info = ModelInfo(
        path=path,
        name=str(header.metadata.get("general.name", path.stem)),
        size_bytes=header.size_bytes,
        digest=fingerprint(header),
        n_embd=_size(header, "embedding_length"),
        n_layer=_size(header, "block_count"),
        n_head=_size(header, "attention.head_count"),
        n_head_kv=_size(header, "attention.head_count_kv"),
        head_dim=_size(header, "attention.key_length"),
        n_ff=_size(header, "feed_forward_length"),
        n_ctx_train=_size(header, "context_length"),
        n_vocab=len(tokens),
        eos_id=eos_id,
        quantization=_FILE_TYPES.get(header.metadata.get("general.file_type", -1), "unknown"),
        added_tokens=tuple(tokens[i] for i, kind in enumerate(tokens.types) if kind in (CONTROL, USER_DEFINED)),
        n_parameters=sum(prod(tensor.shape) for tensor in header.tensors.values()),
        **_sizes_by_layer(header, _size(header, "block_count")),
    )
    _check_numbers(header, info)
    _check_tensors(header, info, kind)
    return info if kind == "embedder" else replace(info, answers=answer_rows(header))


def _sizes_by_layer(header: Header, n_layer: int) -> dict[str, Any]:
    """Bytes of each layer, and of what stands behind the layers. A file without a projection uses the token table."""
    layers = dict.fromkeys(range(min(n_layer, MAX_LAYERS)), 0)
    for name, tensor in header.tensors.items():
        of_layer = _OF_LAYER.match(name)
        if of_layer and int(of_layer[1]) in layers:
            layers[int(of_layer[1])] += tensor.size_bytes
    projection = header.tensors.get(OUTPUT) or header.tensors.get("token_embd.weight")
    behind = [header.tensors.get("output_norm.weight"), projection]
    return {
        "layer_bytes": tuple(layers.values()),
        "output_bytes": sum(tensor.size_bytes for tensor in behind if tensor is not None),
    }


def layer_shapes(n_embd: int, n_ff: int, n_head: int, n_head_kv: int, head_dim: int) -> dict[str, tuple[int, ...]]:
    """The tensors of a layer and their shapes, the row length first."""
    q_size, kv_size = n_head * head_dim, n_head_kv * head_dim
    return {
        "attn_norm": (n_embd,),
        "attn_q": (n_embd, q_size),
        "attn_k": (n_embd, kv_size),
        "attn_v": (n_embd, kv_size),
        "attn_output": (q_size, n_embd),
        "attn_q_norm": (head_dim,),
        "attn_k_norm": (head_dim,),
        "ffn_norm": (n_embd,),
        "ffn_gate": (n_embd, n_ff),
        "ffn_up": (n_embd, n_ff),
        "ffn_down": (n_ff, n_embd),
    }


def _check_family(header: Header, kind: ModelKind) -> None:
    path, metadata = header.path, header.metadata
    architecture = metadata.get("general.architecture")
    if architecture != "qwen3":
        raise WrongModelError(f"{path} has architecture {architecture!r}; only qwen3 (Qwen3-Embedding) runs here")
    n_splits = metadata.get("split.count", 0)
    if n_splits not in (0, 1):
        raise WrongModelError(f"{path} is one of {n_splits} parts; join them with `llama-gguf-split --merge` first")
    pooling = metadata.get("qwen3.pooling_type")
    if pooling is None and kind == "embedder":
        raise WrongModelError(
            f"{path} states no pooling: a chat model, or the work of an old converter; {REMEDY}; "
            "if it is a reranker that does not say so: q3e-local import FILE --as reranker"
        )
    if pooling not in _POOLINGS[kind]:
        raise WrongModelError(f"{path} states {POOLING.get(pooling or 0, pooling)!r} pooling, not 'last'; {REMEDY}")
    if metadata.get("tokenizer.ggml.model") != "gpt2" or metadata.get("tokenizer.ggml.pre") != "qwen2":
        seen = f"{metadata.get('tokenizer.ggml.model')!r}/{metadata.get('tokenizer.ggml.pre')!r}"
        raise WrongModelError(f"{path} has tokenizer {seen}, not 'gpt2'/'qwen2'; {REMEDY}")
    for key in metadata:
        if key.startswith(tuple(f"qwen3.{part}" for part in FOREIGN)):
            raise WrongModelError(f"{path} states {key}, which no Qwen3-Embedding does; {REMEDY}")


def _end_token(header: Header, kind: ModelKind) -> int:
    """The id of `<|endoftext|>`, by its text: the file's own eos_token_id and add_eos_token are not trusted."""
    if not len(header.tokens):
        raise ModelFileError(f"{header.path} has no vocabulary; {REMEDY}")
    eos_id = header.tokens.index(END_TEXT)
    if eos_id is None:
        raise WrongModelError(f"{header.path} has no token {END_TEXT} in its vocabulary; {REMEDY}")
    if len(header.tokens) > QWEN_END_ID and eos_id != QWEN_END_ID:
        raise WrongModelError(f"{header.path} has {END_TEXT} at id {eos_id}, not {QWEN_END_ID}; {REMEDY}")
    repeated = header.tokens.repeated()
    if repeated is not None:  # llama.cpp asserts that there is none
        raise ModelFileError(
            f"{header.path} has {header.tokens[repeated]!r} at id {repeated}, empty or a second time; {REMEDY}"
        )
    types = header.tokens.types
    if len(types) != len(header.tokens):
        raise ModelFileError(f"{header.path} has {len(header.tokens)} tokens, but {len(types)} token types; {REMEDY}")
    if types[eos_id] != CONTROL:
        raise WrongModelError(f"{header.path} does not mark {END_TEXT} as a control token; {REMEDY}")
    stated = header.metadata.get("tokenizer.ggml.eos_token_id")
    if stated != eos_id and kind == "embedder":  # a reranker's prompt ends otherwise
        # Converters before June 2025 wrote the chat end here. The vectors are right: the engine appends ours.
        logger.warning("%s names end token %s; using %s (%s)", header.path, stated, eos_id, END_TEXT)
    return eos_id


def _size(header: Header, key: str) -> int:
    value = header.metadata.get(f"qwen3.{key}")
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value < 2**31:
        raise ModelFileError(f"{header.path} states qwen3.{key} = {value!r}; {REMEDY}")
    return value


def _check_numbers(header: Header, info: ModelInfo) -> None:
    """Check what no tensor's shape shows, and what llama.cpp asserts or silently takes a default for."""
    problem = None
    for key in ("attention.value_length", "rope.dimension_count"):
        if header.metadata.get(f"qwen3.{key}", info.head_dim) != info.head_dim:
            problem = f"qwen3.{key} = {header.metadata[f'qwen3.{key}']!r}, not the key length {info.head_dim}"
    if "qwen3.attention.value_length" not in header.metadata:
        problem = "no qwen3.attention.value_length"
    for key, low, high in (("attention.layer_norm_rms_epsilon", 0, 1), ("rope.freq_base", 1, 1e36)):
        value = header.metadata.get(f"qwen3.{key}")
        if not isinstance(value, float) or not low < value < high:  # NaN is neither
            problem = f"qwen3.{key} = {value!r}"
    if info.head_dim % 2:
        problem = f"an odd key length, {info.head_dim}"
    if info.n_head % info.n_head_kv:
        problem = f"{info.n_head} heads on {info.n_head_kv} KV heads"
    if info.n_layer > MAX_LAYERS:
        problem = f"{info.n_layer} layers"
    if problem is not None:
        raise ModelFileError(f"{info.path} states {problem}; {REMEDY}")


def _check_tensors(header: Header, info: ModelInfo, kind: ModelKind) -> None:
    """Check that every tensor that llama.cpp needs is there, in the size that the metadata states, and no other."""
    of_head = _check_heads(header, info, kind)
    expected: dict[str, tuple[int, ...]] = {
        "token_embd": (info.n_embd, info.n_vocab),
        "output_norm": (info.n_embd,),
    }
    shapes = layer_shapes(info.n_embd, info.n_ff, info.n_head, info.n_head_kv, info.head_dim)
    for layer in range(info.n_layer):
        expected |= {f"blk.{layer}.{name}": shape for name, shape in shapes.items()}
        if f"blk.{layer}.attn_norm.weight" not in header.tensors:
            break  # a hostile layer count must not make the list long; the check below names this one
    for name, shape in expected.items():
        tensor = header.tensors.get(f"{name}.weight")
        if tensor is None:
            raise ModelFileError(f"{info.path} lacks the tensor {name}.weight; {REMEDY}")
        if tensor.shape != shape:
            raise ModelFileError(f"{info.path} has {name}.weight of shape {tensor.shape}, not {shape}; {REMEDY}")
        if len(shape) == 1 and tensor.type_name != "F32":  # llama.cpp aborts on some types
            raise ModelFileError(f"{info.path} has {name}.weight in {tensor.type_name}, not F32; {REMEDY}")
    # llama.cpp would compute with any further tensor, such as a bias or a scale.
    foreign = [
        name for name in header.tensors if name not in of_head and name.removesuffix(".weight") not in expected
    ]
    if foreign:
        raise WrongModelError(f"{info.path} has the tensor {foreign[0]}, which no Qwen3-Embedding has; {REMEDY}")


def _check_heads(header: Header, info: ModelInfo, kind: ModelKind) -> tuple[str, ...]:
    """The names of the tensors that may stand behind the layers; no graph computes them here."""
    shapes: dict[str, tuple[int, ...]] = {OUTPUT: (info.n_embd, info.n_vocab)}
    if kind == "reranker" and HEAD in header.tensors:
        shapes[HEAD] = (info.n_embd, *header.tensors[HEAD].shape[1:])
    for name, shape in shapes.items():
        tensor = header.tensors.get(name)
        if tensor is not None and tensor.shape != shape:
            raise ModelFileError(f"{info.path} has {name} of shape {tensor.shape}, not {shape}; {REMEDY}")
    return tuple(shapes)
