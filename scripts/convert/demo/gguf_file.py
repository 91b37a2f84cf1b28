"""The model as a GGUF file that llama.cpp runs as it runs Qwen3-Embedding."""

from pathlib import Path

import gguf
import numpy as np
from shape import EPSILON, HEAD_DIM, N_EMBD, N_FF, N_HEAD, ROPE_BASE
from vocabulary import Vocabulary

END, CHAT_TOKENS = "<|endoftext|>", ["<|im_start|>", "<|im_end|>"]
DESCRIPTION = (
    "Distilled from multilingual-e5-small, static, no weights of Qwen; for trying out and for small machines, "
    "not for quality."
)
LAYER_TENSORS = (
    "attn_norm", "ffn_down", "ffn_gate", "ffn_up", "ffn_norm", "attn_k_norm", "attn_k", "attn_output", "attn_q_norm",
    "attn_q", "attn_v",
)  # fmt: skip


def add_metadata(writer: gguf.GGUFWriter, vocabulary: Vocabulary) -> None:
    """The keys of a converted Qwen3-Embedding, in its order."""
    writer.add_type(gguf.GGUFType.MODEL)
    writer.add_name("q3e-local demo")
    writer.add_description(DESCRIPTION)
    writer.add_license("apache-2.0")
    writer.add_tags(["feature-extraction"])
    writer.add_languages(["en", "zh"])
    writer.add_block_count(1)
    writer.add_context_length(32768)
    writer.add_embedding_length(N_EMBD)
    writer.add_feed_forward_length(N_FF)
    writer.add_head_count(N_HEAD)
    writer.add_head_count_kv(N_HEAD)
    writer.add_rope_freq_base(ROPE_BASE)
    writer.add_layer_norm_rms_eps(EPSILON)
    writer.add_key_length(HEAD_DIM)
    writer.add_value_length(HEAD_DIM)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)
    writer.add_pooling_type(gguf.PoolingType.LAST)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    specials = [END, *CHAT_TOKENS]
    normal = gguf.TokenType.NORMAL
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list([*vocabulary.tokens, *specials])
    writer.add_token_types([normal] * len(vocabulary.tokens) + [gguf.TokenType.CONTROL] * len(specials))
    writer.add_token_merges([f"{left} {right}" for left, right in vocabulary.merges])
    end = len(vocabulary.tokens)
    writer.add_eos_token_id(end)
    writer.add_pad_token_id(end)
    writer.add_eot_token_id(end + specials.index("<|im_end|>"))
    writer.add_bos_token_id(end)
    writer.add_add_eos_token(True)
    writer.add_add_bos_token(False)


def tensors(trained: dict[str, np.ndarray], vocabulary: Vocabulary) -> dict[str, np.ndarray]:
    """All tensors of the model, in the order of a converted checkpoint. Forms of a word have equal rows."""
    rows, _ = vocabulary.groups()
    ends = np.repeat(trained["token_embd"][-1:], 1 + len(CHAT_TOKENS), axis=0)
    layers = {f"blk.0.{name}.weight": trained[f"blk.0.{name}"] for name in LAYER_TENSORS}
    embeddings = np.concatenate([trained["token_embd"][rows], ends])
    return {"token_embd.weight": embeddings, **layers, "output_norm.weight": trained["output_norm"]}


def write(path: Path, trained: dict[str, np.ndarray], vocabulary: Vocabulary) -> None:
    """Write the model beside `path` and rename it: matrices in Q8_0, vectors in float32.

    `trained` has the parameters by their names, with a row of `token_embd` for each group of tokens and a
    last one for the end token.
    """
    partial = path.with_name(path.name + ".partial")
    writer = gguf.GGUFWriter(partial, "qwen3")
    add_metadata(writer, vocabulary)
    for name, tensor in tensors(trained, vocabulary).items():
        if tensor.ndim == 1:
            writer.add_tensor(name, tensor)
        else:
            q8_0 = gguf.GGMLQuantizationType.Q8_0
            writer.add_tensor(name, gguf.quants.quantize(tensor, q8_0), raw_dtype=q8_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    partial.replace(path)
