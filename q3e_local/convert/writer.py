"""Write a judged checkpoint as GGUF, with the keys, tensors and bytes that llama.cpp's own converter writes.

Knows their order and types (convert_hf_to_gguf.py of llama.cpp, for Qwen3ForCausalLM and Qwen3Model), but for a
reranker's head, which stays F32 here; holds a few rows of a tensor at a time. Knows nothing of K-quants, which the
gguf package cannot make.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

import gguf
import numpy as np
from gguf import GGMLQuantizationType, GGUFWriter
from gguf.quants import quant_shape_to_byte_shape, quantize
from numpy.typing import NDArray

from q3e_local.convert.checkpoint import Checkpoint
from q3e_local.convert.quantizer import FILE_TYPES
from q3e_local.convert.reranker import TEMPLATE
from q3e_local.convert.shards import REMEDY, PickedRows, StoredTensor, widened
from q3e_local.convert.vocabulary import Vocabulary
from q3e_local.errors import ConversionError
from q3e_local.gguf.model_kind import HEAD

WRITTEN = ("f32", "f16", "bf16", "q8_0")  # the quantizations that the gguf package makes
_NUMBERS_AT_ONCE = 1 << 24  # 64 MiB as float32, whatever the tensor
_ALIGNMENT = 32


def n_bytes(checkpoint: Checkpoint, quantization: str) -> int:
    """Bytes of the tensors in a file of this type."""
    sizes = (_stored_bytes(tensor, _kind(name, tensor, quantization)) for name, tensor in checkpoint.tensors.items())
    return sum(size + -size % _ALIGNMENT for size in sizes)


def write_gguf(
    checkpoint: Checkpoint, path: Path, quantization: str, name: str | None, progress: Callable[[int, int], None]
) -> None:
    """Write the file. `progress` gets the bytes written and all there are. Raises ConversionError or OSError."""
    writer = GGUFWriter(path, "qwen3")
    _add_general(writer, checkpoint, name)
    _add_sizes(writer, checkpoint, quantization)
    _add_vocabulary(writer, checkpoint.vocabulary)
    for gguf_name, tensor in checkpoint.tensors.items():
        kind = _kind(gguf_name, tensor, quantization)
        # As bytes: for other types the package wants an array, and NumPy lacks some of them.
        shape = quant_shape_to_byte_shape(tensor.shape, kind)
        writer.add_tensor_info(gguf_name, shape, np.dtype(np.uint8), _stored_bytes(tensor, kind), kind)
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
    except (ValueError, TypeError, struct.error) as error:
        raise ConversionError(
            f"the model card, chat template or name cannot be written ({error}); correct it"
        ) from error
    finally:
        writer.close()
    total, done = n_bytes(checkpoint, quantization), 0
    with path.open("ab") as file:
        _pad(file)
        for gguf_name, tensor in checkpoint.tensors.items():
            for piece in _pieces(tensor, _kind(gguf_name, tensor, quantization)):
                file.write(piece.data)
                done += piece.nbytes
                progress(done, total)
            _pad(file)


def _pieces(tensor: StoredTensor | PickedRows, kind: GGMLQuantizationType) -> Iterator[NDArray[Any]]:
    for stored in tensor.rows(_NUMBERS_AT_ONCE):
        numbers = widened(stored)
        if not np.isfinite(numbers).all():
            raise ConversionError(f"{tensor.path} has NaN or infinity in {tensor.name}; {REMEDY}")
        if kind.name == tensor.dtype:
            yield np.ascontiguousarray(stored)
            continue
        with np.errstate(over="ignore"):
            converted = quantize(numbers, kind)
        if kind == GGMLQuantizationType.F16 and not np.isfinite(converted).all():
            largest = float(np.abs(numbers).max())
            raise ConversionError(
                f"{tensor.name} has a weight of {largest:g}, above what f16 can hold; take bf16 or f32"
            )
        yield np.ascontiguousarray(converted)


def _kind(name: str, tensor: StoredTensor | PickedRows, quantization: str) -> GGMLQuantizationType:
    """Vectors, which are all norms here, stay F32, and so does a reranker's head: its few rows are all of the score.

    Other rows that are not whole blocks become F16.
    """
    if len(tensor.shape) == 1 or name == HEAD:
        return GGMLQuantizationType.F32
    kind = GGMLQuantizationType[quantization.upper()]
    block, _ = gguf.GGML_QUANT_SIZES[kind]
    return kind if tensor.shape[-1] % block == 0 else GGMLQuantizationType.F16


def _stored_bytes(tensor: StoredTensor | PickedRows, kind: GGMLQuantizationType) -> int:
    block, block_bytes = gguf.GGML_QUANT_SIZES[kind]
    return prod(tensor.shape) // block * block_bytes


def _add_general(writer: GGUFWriter, checkpoint: Checkpoint, name: str | None) -> None:
    """`general.*`: from the model card's front matter, else from the folder's name, as the gguf package does it."""
    n_params = checkpoint.n_params
    try:
        read = gguf.Metadata.load(None, checkpoint.folder, None, n_params)
        card = gguf.Metadata.load_model_card(checkpoint.folder)
        metadata = gguf.Metadata.apply_metadata_heuristic(
            gguf.Metadata(), card, checkpoint.config, Path(checkpoint.title), n_params
        )
        sampling = {each.name: getattr(read, each.name) for each in fields(read) if each.name.startswith("sampling_")}
        if sampling["sampling_penalty_repeat"] is None:  # newer converters know this name too
            generation = gguf.Metadata.load_generation_config(checkpoint.folder)
            sampling["sampling_penalty_repeat"] = generation.get("repetition_penalty")
        metadata = replace(metadata, **sampling)
        metadata.name = name or metadata.name or checkpoint.title
        metadata.size_label = metadata.size_label or gguf.size_label(n_params, n_params, 0, 0)
        writer.add_type(gguf.GGUFType.MODEL)
        metadata.set_gguf_meta_model(writer)
    except Exception as error:  # the package trusts the YAML, and raises whatever comes of it
        raise ConversionError(
            f"the front matter of {checkpoint.folder / 'README.md'} cannot be used ({error}); correct or delete it"
        ) from error


def _add_sizes(writer: GGUFWriter, checkpoint: Checkpoint, quantization: str) -> None:
    sizes = checkpoint.sizes
    writer.add_block_count(sizes.n_layer)
    writer.add_context_length(sizes.n_ctx_train)
    writer.add_embedding_length(sizes.n_embd)
    writer.add_feed_forward_length(sizes.n_ff)
    writer.add_head_count(sizes.n_head)
    writer.add_head_count_kv(sizes.n_head_kv)
    writer.add_rope_freq_base(sizes.rope_base)
    writer.add_layer_norm_rms_eps(sizes.rms_eps)
    writer.add_key_length(sizes.head_dim)
    writer.add_value_length(sizes.head_dim)
    writer.add_file_type(FILE_TYPES[quantization])
    if checkpoint.kind == "embedder":
        writer.add_pooling_type(gguf.PoolingType.LAST)
    else:
        writer.add_pooling_type(gguf.PoolingType.RANK)
        writer.add_classifier_output_labels(checkpoint.labels)
        writer.add_chat_template([{"name": "rerank", "template": TEMPLATE}])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)


def _add_vocabulary(writer: GGUFWriter, vocabulary: Vocabulary) -> None:
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types(vocabulary.types)
    writer.add_token_merges(vocabulary.merges)
    calls: dict[str, int] = {f"add_{kind}_token_id": token_id for kind, token_id in vocabulary.special_ids.items()}
    calls |= {f"add_add_{kind}_token": adds for kind, adds in vocabulary.added.items()}
    for method, value in calls.items():
        add = getattr(writer, method, None)
        if add is not None:  # there is no key for a cls token
            add(value)
    if vocabulary.chat_template is not None:
        writer.add_chat_template(vocabulary.chat_template)


def _pad(file: BinaryIO) -> None:
    file.write(bytes(-file.tell() % _ALIGNMENT))
