"""Tiny Qwen3-Embedding checkpoints, file for file as in the official repositories, and what a GGUF has of them.

Knows config.json, the tokenizer files, the sentence-transformers files and safetensors, in one shard or several;
takes weights and tokenizer from tiny. The safetensors are written by hand, so that they can be written wrong.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tiny
from gguf import GGMLQuantizationType, GGUFReader
from gguf.quants import quantize
from oracle import Config, Weights
from tokenizers import Tokenizer

NAME = "Qwen3-Embedding-0.6B"
RERANKER = "Qwen3-Reranker-0.6B"

TAGS = ["transformers", "sentence-transformers", "sentence-similarity", "feature-extraction"]

CARD = f"""\
---
license: apache-2.0
base_model:
- Qwen/Qwen3-0.6B-Base
tags: [{", ".join(TAGS)}]
---
# Qwen3-Embedding-0.6B
"""

MODULES = [
    {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
    {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    {"idx": 2, "name": "2", "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"},
]

CHAT_TEMPLATE = (
    "{%- for message in messages %}{{- '<|im_start|>' + message.role + '\\n' + message.content }}{%- endfor %}"
)


def rounded(weights: Weights, dtype: str) -> Weights:
    """The weights as a checkpoint of this type holds them."""
    return {name: widen(narrow(weight, dtype), dtype) for name, weight in weights.items()}


def narrow(weight: np.ndarray, dtype: str) -> np.ndarray:
    """Float32 in a checkpoint's type; bf16 as its 16 bits, rounded to the nearest, ties to even."""
    if dtype != "BF16":
        return weight.astype({"F16": np.float16, "F32": np.float32}[dtype])
    bits = weight.astype(np.float32).view(np.uint32).astype(np.uint64)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)


def widen(stored: np.ndarray, dtype: str) -> np.ndarray:
    if dtype != "BF16":
        return stored.astype(np.float32)
    return (stored.astype(np.uint32) << 16).view(np.float32)


def write_safetensors(path: Path, tensors: dict[str, np.ndarray], dtype: str) -> None:
    """One file of `tensors`, which are in the bytes of the type already."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    position = 0
    for name, tensor in tensors.items():
        header[name] = {
            "dtype": dtype,
            "shape": list(tensor.shape),
            "data_offsets": [position, position + tensor.nbytes],
        }
        position += tensor.nbytes
    raw = json.dumps(header, separators=(",", ":")).encode()
    raw += b" " * (-len(raw) % 8)
    with path.open("wb") as file:
        file.write(len(raw).to_bytes(8, "little") + raw)
        for tensor in tensors.values():
            file.write(np.ascontiguousarray(tensor).tobytes())


def write_checkpoint(
    parent: Path,
    weights: Weights,
    config: Config,
    tokenizer: Tokenizer,
    *,
    name: str = NAME,
    dtype: str = "BF16",
    n_shards: int = 1,
    prefix: str = "",
) -> Path:
    """A whole checkpoint folder, which the tests then spoil as they need."""
    folder = parent / name
    (folder / "1_Pooling").mkdir(parents=True)
    _write_weights(folder, weights, dtype, n_shards, prefix)
    tokenizer.save(str(folder / "tokenizer.json"))
    ids = {text: tokenizer.token_to_id(text) for text in (tiny.END, tiny.CHAT_END)}
    write_json(
        folder / "config.json", model_config(config, len(weights["embed_tokens.weight"]), ids[tiny.END], dtype)
    )
    write_json(folder / "generation_config.json", {"bos_token_id": ids[tiny.END], "max_new_tokens": 2048})
    write_json(folder / "tokenizer_config.json", tokenizer_config(tokenizer))
    write_json(folder / "modules.json", MODULES)
    write_json(folder / "1_Pooling" / "config.json", pooling_config(config.n_embd))
    prompts = {"query": "Instruct: Given a web search query, retrieve relevant passages\nQuery:", "document": ""}
    write_json(folder / "config_sentence_transformers.json", {"prompts": prompts, "similarity_fn_name": "cosine"})
    (folder / "README.md").write_text(CARD, encoding="utf-8")
    return folder


def write_reranker(
    parent: Path,
    weights: Weights,
    config: Config,
    tokenizer: Tokenizer,
    *,
    name: str = RERANKER,
    output: np.ndarray | None = None,
    **options: Any,
) -> Path:
    """A Qwen3-Reranker's folder: a chat model's, but for its card. `output` is its head, where it is not tied."""
    weights = weights if output is None else weights | {"lm_head.weight": output}
    folder = write_checkpoint(parent, weights, config, tokenizer, name=name, **options)
    for path in (folder / "1_Pooling" / "config.json", folder / "modules.json"):
        path.unlink()
    (folder / "1_Pooling").rmdir()
    (folder / "config_sentence_transformers.json").unlink()
    set_templates(folder, single=None)
    change_json(folder / "config.json", tie_word_embeddings=output is None)
    (folder / "README.md").write_text(CARD.replace("Embedding", "Reranker"), encoding="utf-8")
    return folder


def _write_weights(folder: Path, weights: Weights, dtype: str, n_shards: int, prefix: str) -> None:
    stored = {prefix + name: narrow(weight, dtype) for name, weight in weights.items()}
    if n_shards == 1:
        write_safetensors(folder / "model.safetensors", stored, dtype)
        return
    # As transformers cuts them: in the order of the model, the table first, the last norm last.
    names = sorted(stored, key=lambda name: (_layer(name), name))
    weight_map = {}
    for number in range(n_shards):
        shard = f"model-{number + 1:05d}-of-{n_shards:05d}.safetensors"
        part = names[number * len(names) // n_shards : (number + 1) * len(names) // n_shards]
        write_safetensors(folder / shard, {name: stored[name] for name in part}, dtype)
        weight_map |= dict.fromkeys(part, shard)
    total = sum(tensor.nbytes for tensor in stored.values())
    write_json(folder / "model.safetensors.index.json", {"metadata": {"total_size": total}, "weight_map": weight_map})


def _layer(name: str) -> int:
    parts = name.removeprefix("model.").split(".")
    return int(parts[1]) if parts[0] == "layers" else (-1 if parts[0] == "embed_tokens" else 1000)


def model_config(config: Config, n_vocab: int, end_id: int, dtype: str = "BF16") -> dict[str, Any]:
    """config.json: what is read of it, and the type, which is not."""
    return {
        "architectures": ["Qwen3ForCausalLM"],
        "bos_token_id": end_id,
        "eos_token_id": end_id,
        "head_dim": config.head_dim,
        "hidden_act": "silu",
        "hidden_size": config.n_embd,
        "intermediate_size": config.n_ff,
        "max_position_embeddings": tiny.N_CTX,
        "model_type": "qwen3",
        "num_attention_heads": config.n_head,
        "num_hidden_layers": config.n_layer,
        "num_key_value_heads": config.n_head_kv,
        "rms_norm_eps": config.rms_eps,
        "rope_scaling": None,
        "rope_theta": int(config.rope_base),
        "torch_dtype": {"BF16": "bfloat16", "F16": "float16", "F32": "float32"}[dtype],
        "use_sliding_window": False,
        "vocab_size": n_vocab,
    }


def tokenizer_config(tokenizer: Tokenizer) -> dict[str, Any]:
    """tokenizer_config.json: the chat end is what it calls the end of a text."""
    flags = ("lstrip", "normalized", "rstrip", "single_word")
    decoder = {
        str(token_id): {"content": token.content, **dict.fromkeys(flags, False), "special": token.special}
        for token_id, token in tokenizer.get_added_tokens_decoder().items()
    }
    return {
        "add_bos_token": False,
        "added_tokens_decoder": decoder,
        "additional_special_tokens": [tiny.CHAT_START, tiny.CHAT_END],
        "bos_token": None,
        "chat_template": CHAT_TEMPLATE,
        "eos_token": tiny.CHAT_END,
        "pad_token": tiny.END,
        "tokenizer_class": "Qwen2Tokenizer",
        "unk_token": None,
    }


def pooling_config(n_embd: int, **modes: Any) -> dict[str, Any]:
    """1_Pooling/config.json."""
    flags = ("cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens", "weightedmean_tokens", "lasttoken")
    stated = {f"pooling_mode_{flag}": flag == "lasttoken" for flag in flags}
    return {"word_embedding_dimension": n_embd, **stated, "include_prompt": True, **modes}


def write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False), encoding="utf-8")


def change_json(path: Path, **values: Any) -> None:
    """Replace keys of a JSON file; None as a value is JSON's null, `...` takes the key out."""
    changed = json.loads(path.read_text(encoding="utf-8")) | values
    write_json(path, {key: value for key, value in changed.items() if value is not ...})


def change_tokenizer(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = folder / "tokenizer.json"
    tokenizer = json.loads(path.read_text(encoding="utf-8"))
    change(tokenizer)
    path.write_text(json.dumps(tokenizer), encoding="utf-8")  # ASCII, which a lone surrogate needs


def set_templates(folder: Path, **texts: list[str] | None) -> None:
    """Rewrite the tokenizer's templates: `A`, `B`, or a special token. None for `single`: no template at all."""

    def piece(text: str) -> dict[str, Any]:
        return {"Sequence" if text in ("A", "B") else "SpecialToken": {"id": text, "type_id": 0}}

    def change(tokenizer: dict[str, Any]) -> None:
        processors = tokenizer["post_processor"]["processors"]
        for key, pieces in texts.items():
            if pieces is None:
                del processors[1]
            else:
                processors[1][key] = [piece(text) for text in pieces]

    change_tokenizer(folder, change)


def tensors_in(path: Path) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    """Type, shape and bytes of each tensor of a GGUF, in the order of the file."""
    return {t.name: (t.tensor_type.name, tuple(t.shape.tolist()), t.data.tobytes()) for t in GGUFReader(path).tensors}


def expected_tensors(weights: Weights, quantization: str) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    """The same of a GGUF of this type, by the gguf package, in the order of the checkpoint. Norms stay F32."""
    expected = {}
    for name, weight in sorted(weights.items()):
        kind = GGMLQuantizationType[quantization.upper() if weight.ndim == 2 else "F32"]
        expected[tiny._gguf_name(name)] = kind.name, weight.shape[::-1], quantize(weight, kind).tobytes()
    return expected


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())
