"""Write a GGUF as a checkpoint that transformers loads, in bf16: the same model and tokenizer for the other runtimes.

Runs under the Python that has torch; needs gguf, safetensors and tokenizers there.

    python checkpoint.py MODEL.gguf FOLDER
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


# What a GGUF says of its tokenizer, and how this family cuts a text into the pieces that byte pairs are merged in.
PARTS = ("tokens", "token_type", "merges", "eos_token_id")
PIECES = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
CONTROL, USER_DEFINED = 3, 4


def name_of(tensor: str) -> str:
    """`layers.3.mlp.up_proj.weight` for `blk.3.ffn_up.weight`."""
    if tensor in ("token_embd.weight", "output_norm.weight"):
        return {"token_embd.weight": "embed_tokens.weight", "output_norm.weight": "norm.weight"}[tensor]
    _, layer, part, _ = tensor.split(".")
    return f"layers.{layer}.{NAMES[part]}.weight"


def write_tokenizer(said: dict[str, Any], folder: Path, n_ctx: float) -> None:
    """tokenizer.json, which puts the end token behind a text, and its config."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    tokens, types = said["tokens"], said["token_type"]
    end, end_id = tokens[said["eos_token_id"]], said["eos_token_id"]
    merges = [tuple(merge.split(" ")) for merge in said["merges"]]
    tokenizer = Tokenizer(models.BPE({token: number for number, token in enumerate(tokens)}, merges))
    tokenizer.normalizer = normalizers.NFC()
    pieces = pre_tokenizers.Split(Regex(PIECES), "isolated")
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pieces, byte_level])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(f"$A {end}", special_tokens=[(end, end_id)])
    tokenizer.add_tokens(
        [
            AddedToken(token, special=kind == CONTROL, normalized=False)
            for token, kind in zip(tokens, types, strict=True)
            if kind in (CONTROL, USER_DEFINED)
        ]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": end, "pad_token": end}
    config["model_max_length"] = n_ctx
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")


def main(model: Path, folder: Path) -> None:
    import torch
    from gguf import GGUFReader
    from gguf.quants import dequantize
    from safetensors.torch import save_file

    reader = GGUFReader(model)

    def said(key: str) -> int | float:
        number: int | float = reader.fields[f"qwen3.{key}"].contents()
        return number

    weights = {
        name_of(tensor.name): torch.from_numpy(dequantize(tensor.data, tensor.tensor_type)).to(torch.bfloat16)
        for tensor in reader.tensors
    }
    config = {
        "architectures": ["Qwen3Model"],
        "model_type": "qwen3",
        "dtype": "bfloat16",
        "hidden_size": said("embedding_length"),
        "intermediate_size": said("feed_forward_length"),
        "num_hidden_layers": said("block_count"),
        "num_attention_heads": said("attention.head_count"),
        "num_key_value_heads": said("attention.head_count_kv"),
        "head_dim": said("attention.key_length"),
        "rms_norm_eps": said("attention.layer_norm_rms_epsilon"),
        "rope_theta": said("rope.freq_base"),
        "rope_parameters": {"rope_type": "default", "rope_theta": said("rope.freq_base")},
        "max_position_embeddings": said("context_length"),
        "pad_token_id": reader.fields["tokenizer.ggml.eos_token_id"].contents(),
        "vocab_size": len(weights["embed_tokens.weight"]),
        "hidden_act": "silu",
        "attention_bias": False,
        "tie_word_embeddings": True,
    }
    folder.mkdir(parents=True, exist_ok=True)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    write_tokenizer(
        {key: reader.fields[f"tokenizer.ggml.{key}"].contents() for key in PARTS}, folder, said("context_length")
    )
    # Last, so that a folder with it is whole.
    (folder / "config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
