"""Write the weights of a GGUF as a checkpoint that transformers loads, in bf16: the same model for PyTorch.

Runs under the Python that has torch; needs gguf and safetensors there.

    python checkpoint.py MODEL.gguf FOLDER
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

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


def name_of(tensor: str) -> str:
    """`layers.3.mlp.up_proj.weight` for `blk.3.ffn_up.weight`."""
    if tensor in ("token_embd.weight", "output_norm.weight"):
        return {"token_embd.weight": "embed_tokens.weight", "output_norm.weight": "norm.weight"}[tensor]
    _, layer, part, _ = tensor.split(".")
    return f"layers.{layer}.{NAMES[part]}.weight"


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
        "vocab_size": len(weights["embed_tokens.weight"]),
        "hidden_act": "silu",
        "attention_bias": False,
        "tie_word_embeddings": True,
    }
    folder.mkdir(parents=True, exist_ok=True)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    # Last, so that a folder with it is whole.
    (folder / "config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
