"""Judge a Hugging Face checkpoint folder: is it a Qwen3 embedding model or reranker, whole, and of which sizes.

Knows config.json, the sentence-transformers files and the names and shapes of the family's tensors; leaves reading
them to shards and vocabulary, and writes nothing.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from q3e_local.convert import reranker
from q3e_local.convert.shards import REMEDY, PickedRows, StoredTensor, read_json, read_json_value, read_shards
from q3e_local.convert.vocabulary import Vocabulary, read_vocabulary
from q3e_local.errors import ConversionError
from q3e_local.gguf.model_file import END_TEXT, layer_shapes
from q3e_local.gguf.model_kind import ModelKind

logger = logging.getLogger(__name__)

ARCHITECTURES = ("Qwen3ForCausalLM", "Qwen3Model")
_POOLING_FLAGS = {"mean_tokens": "mean", "cls_token": "cls", "lasttoken": "lasttoken"}
# Some checkpoints have these, which nothing here reads: positions are computed, and a head is not needed.
_IGNORED = ("lm_head.weight", "rotary_emb.inv_freq")

_LAYER_NAMES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


@dataclass(frozen=True)
class Sizes:
    """The numbers of config.json, under llama.cpp's names."""

    n_layer: int
    n_ctx_train: int
    n_embd: int
    n_ff: int
    n_head: int
    n_head_kv: int
    head_dim: int
    n_vocab: int
    rope_base: float
    rms_eps: float


@dataclass(frozen=True)
class Checkpoint:
    """A judged checkpoint. `title` names the model; `tensors` by their GGUF names, in the order of the file.

    `labels` are those of a reranker's head, a row each; an embedding model has none.
    """

    folder: Path
    title: str
    config: dict[str, Any]
    sizes: Sizes
    tensors: dict[str, StoredTensor | PickedRows]
    vocabulary: Vocabulary
    labels: tuple[str, ...] = ()

    @property
    def kind(self) -> ModelKind:
        return "reranker" if self.labels else "embedder"

    @property
    def n_params(self) -> int:
        return sum(prod(tensor.shape) for tensor in self.tensors.values())

    @property
    def dtype(self) -> str:
        """The type of all matrices, or F32 where they differ: it holds all types exactly."""
        found = {tensor.dtype for tensor in self.tensors.values() if len(tensor.shape) > 1}
        return found.pop() if len(found) == 1 else "F32"


def read_checkpoint(folder: Path, kind: ModelKind | None = None) -> Checkpoint:
    """Read and judge a folder, as the kind of model that the user says it is, or that it says itself.

    Raises ConversionError with what is wrong and what to do."""
    folder = folder.absolute()
    if not folder.exists():
        raise ConversionError(f"there is no folder {folder}")
    if not folder.is_dir():
        way = f"quantize it with: q3e-local quantize {folder} ..." if folder.suffix == ".gguf" else "name its folder"
        raise ConversionError(f"{folder} is a file, not a checkpoint's folder; {way}")
    config = read_json(folder / "config.json")
    title = _title(folder)
    architecture = _architecture(config)
    if kind is None:
        kind = "reranker" if reranker.is_reranker(folder, title, config, architecture) else "embedder"
    _check_family(folder, config, architecture, kind)
    sizes = _sizes(folder / "config.json", config)
    stored = read_shards(folder)
    tensors = _named(folder, stored, sizes, kind)
    vocabulary = read_vocabulary(folder, config, sizes.n_vocab, kind)
    if kind == "reranker":
        tensors, labels = reranker.with_head(folder, config, stored, tensors, vocabulary)
        return Checkpoint(folder, title, config, sizes, tensors, vocabulary, labels)
    _check_pooling(folder, title, vocabulary)
    return Checkpoint(folder, title, config, sizes, tensors, vocabulary)


def _title(folder: Path) -> str:
    """The folder's name; a snapshot in the hub cache is called by its commit, so there the repository's."""
    if folder.parent.name == "snapshots" and folder.parent.parent.name.startswith("models--"):
        return folder.parent.parent.name.rsplit("--", 1)[1]
    return folder.name


def _architecture(config: dict[str, Any]) -> Any:
    listed = config.get("architectures")
    return listed[0] if isinstance(listed, list) and listed else config.get("model_type")


def _check_family(folder: Path, config: dict[str, Any], architecture: Any, kind: ModelKind) -> None:
    of_reranker = kind == "reranker" and architecture == reranker.ARCHITECTURE
    if architecture not in ARCHITECTURES and not of_reranker:
        raise ConversionError(f"{folder} is a {architecture} checkpoint; only {' or '.join(ARCHITECTURES)} is Qwen3")
    rope = config.get("rope_scaling") or config.get("rope_parameters") or {}
    scaling = rope.get("rope_type", rope.get("type", "default")) if isinstance(rope, dict) else rope
    activation = config.get("hidden_act", "silu")
    faults = {
        "is quantized already; take the original checkpoint": "quantization_config" in config,
        f"has scaled positions ({rope}), which no Qwen3-Embedding has": scaling != "default",
        "uses a sliding window, which no Qwen3-Embedding does": config.get("use_sliding_window"),
        "does not use causal attention, as every Qwen3-Embedding does": config.get("is_causal", True) is not True,
        f"uses {activation!r}, not 'silu'": activation != "silu",
    }
    for fault, is_there in faults.items():
        if is_there:
            raise ConversionError(f"{folder} {fault}")


def _sizes(path: Path, config: dict[str, Any]) -> Sizes:
    def number(key: str, kind: type[int] | type[float], found: Any = None) -> Any:
        value = config.get(key, found)
        if kind is float and type(value) is int:
            value = float(value)
        if type(value) is not kind or not 0 < value < 2**31:
            raise ConversionError(f"{path} says {key} = {value!r}; {REMEDY}")
        return value

    rope = config.get("rope_parameters")
    return Sizes(
        n_layer=number("num_hidden_layers", int),
        n_ctx_train=number("max_position_embeddings", int),
        n_embd=number("hidden_size", int),
        n_ff=number("intermediate_size", int),
        n_head=number("num_attention_heads", int),
        n_head_kv=number("num_key_value_heads", int),
        head_dim=number("head_dim", int),
        n_vocab=number("vocab_size", int),
        rope_base=number("rope_theta", float, rope.get("rope_theta") if isinstance(rope, dict) else None),
        rms_eps=number("rms_norm_eps", float),
    )


def _named(
    folder: Path, stored: dict[str, StoredTensor], sizes: Sizes, kind: ModelKind
) -> dict[str, StoredTensor | PickedRows]:
    """The tensors by their GGUF names; each one there, in its shape, and no other. A head is not among them."""
    expected = _expected(stored, sizes)
    named: dict[str, StoredTensor | PickedRows] = {}
    for full_name, tensor in stored.items():
        name = full_name.removeprefix("model.")
        if kind == "reranker" and name in reranker.HEADS:
            continue
        if name.endswith(_IGNORED):
            logger.info("%s is not used and left out", full_name)
            continue
        if name not in expected:
            raise ConversionError(f"{tensor.path} has the tensor {full_name}, which no Qwen3-Embedding has")
        gguf_name, shape = expected[name]
        if tensor.shape != shape:
            raise ConversionError(
                f"{tensor.path} has {full_name} of shape {list(tensor.shape)}, not {list(shape)} as config.json says"
            )
        if gguf_name in named:
            raise ConversionError(f"{folder} has {name} twice, with and without 'model.'; {REMEDY}")
        named[gguf_name] = tensor
    missing = [name for name, (gguf_name, _) in expected.items() if gguf_name not in named]
    if missing:
        raise ConversionError(f"{folder} lacks the tensor {missing[0]}; {REMEDY}")
    return named


def _expected(stored: dict[str, StoredTensor], sizes: Sizes) -> dict[str, tuple[str, tuple[int, ...]]]:
    """By Hugging Face name, without `model.`: the GGUF name and the shape, rows first."""
    expected: dict[str, tuple[str, tuple[int, ...]]] = {
        "embed_tokens.weight": ("token_embd.weight", (sizes.n_vocab, sizes.n_embd)),
        "norm.weight": ("output_norm.weight", (sizes.n_embd,)),
    }
    shapes = layer_shapes(sizes.n_embd, sizes.n_ff, sizes.n_head, sizes.n_head_kv, sizes.head_dim)
    for layer in range(min(sizes.n_layer, len(stored))):  # a hostile layer count must not make the list long
        for name, gguf_name in _LAYER_NAMES.items():
            gguf_full = f"blk.{layer}.{gguf_name}.weight"
            expected[f"layers.{layer}.{name}.weight"] = gguf_full, shapes[gguf_name][::-1]
    return expected


def _check_pooling(folder: Path, title: str, vocabulary: Vocabulary) -> None:
    """Refuse another pooling and chat models; warn where an embedding model's folder states no pooling."""
    pooling = _pooling(folder)
    if pooling is not None and pooling != "lasttoken":
        raise ConversionError(f"{folder} pools by {pooling!r}, not the last token; it is no Qwen3-Embedding")
    if pooling is None:
        if not vocabulary.appends_end and "embedding" not in title.lower():
            raise ConversionError(
                f"{folder} is a chat model, not an embedding model: it has no modules.json, "
                f"and its tokenizer does not append {END_TEXT}"
            )
        logger.warning("%s has no modules.json that states its pooling; taking the last token", folder)


def _pooling(folder: Path) -> str | None:
    path = folder / "modules.json"
    if not path.exists():
        return None
    modules = read_json_value(path)
    if not isinstance(modules, list) or not all(isinstance(module, dict) for module in modules):
        raise ConversionError(f"{path} is not a list of modules; {REMEDY}")
    pooling = None
    for module in modules:
        kind = str(module.get("type")).rsplit(".", 1)[-1]
        if kind == "Pooling" and pooling is None:
            pooling = _pooling_mode(folder / str(module.get("path")) / "config.json")
        elif kind not in ("Transformer", "Normalize"):
            raise ConversionError(f"{path} has a {kind} module, which a GGUF cannot hold")
    return pooling


def _pooling_mode(path: Path) -> str:
    config = read_json(path)
    flagged = (mode for flag, mode in _POOLING_FLAGS.items() if config.get(f"pooling_mode_{flag}"))
    return next(flagged, str(config.get("pooling_mode")))
