"""Small GGUF files, and copies of them with other keys and tensors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import tiny
from oracle import Config

N_TOKENS = 264
WORDS = [f"word{i}" for i in range(N_TOKENS)]

_SCALAR = {int: gguf.GGUFValueType.UINT32, float: gguf.GGUFValueType.FLOAT32, str: gguf.GGUFValueType.STRING}
_SCALAR |= {bool: gguf.GGUFValueType.BOOL}


def rewrite(
    source: Path,
    target: Path,
    keys: dict[str, Any] | None = None,
    tensors: dict[str, np.ndarray | None] | None = None,
) -> Path:
    """Copy a GGUF with some keys and tensors replaced, added, or (None) left out. The gguf package does the work."""
    keys, tensors = keys or {}, tensors or {}
    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(target, reader.fields["general.architecture"].contents())
    for name, field in reader.fields.items():
        if not name.startswith("GGUF.") and name != "general.architecture" and name not in keys:
            kind, *item = field.types
            writer.add_key_value(name, field.contents(), kind, item[0] if item else None)
    for name, value in keys.items():
        if isinstance(value, list):
            item = gguf.GGUFValueType.INT32 if name.endswith("token_type") else _SCALAR[type(value[0])]
            writer.add_key_value(name, value, gguf.GGUFValueType.ARRAY, item)
        elif value is not None:
            writer.add_key_value(name, value, _SCALAR[type(value)])
    types = {tensor.name: tensor.tensor_type for tensor in reader.tensors if tensor.name not in tensors}
    kept = {tensor.name: tensor.data for tensor in reader.tensors} | tensors
    for name, data in kept.items():
        if data is not None:
            writer.add_tensor(name, data, raw_dtype=types.get(name))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return target


def small_gguf(folder: Path) -> Path:
    """A model so small that its header is most of it."""
    config = Config(n_layer=1, n_embd=32, n_ff=32, n_head=1, n_head_kv=1, head_dim=32)
    tokenizer = tiny.tiny_tokenizer(264)
    return tiny.write_gguf(folder / "small.gguf", tiny.tiny_weights(config, n_vocab=264), config, tokenizer)
