"""Write a GGUF once more with a reranker's head of its own, in F32: a file may have none, or a coarser one.

Knows the bytes of a GGUF's header, which it copies but for the keys that a head needs; leaves the numbers of other
tensors as they are.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator
from math import prod
from pathlib import Path
from typing import BinaryIO

import numpy as np
from gguf import GGMLQuantizationType, GGUFReader, GGUFValueType
from numpy.typing import NDArray

from q3e_local.convert.reranker import TEMPLATE, YES_NO
from q3e_local.gguf.header import Header
from q3e_local.gguf.model_kind import HEAD, LABELS, OUTPUT, RANK, RERANK_TEMPLATE, answer_rows
from q3e_local.gguf.rows import read_rows

_POOLING, _TEMPLATES = "qwen3.pooling_type", "tokenizer.chat_templates"
_AT_ONCE = 1 << 24


def write_with_head(source: Path, target: Path, origin: Header, progress: Callable[[int, int], None]) -> None:
    """Copy the GGUF `source` to `target`, with the head that the file of `origin` has, or that its rows make.

    The head takes the place of the vocabulary projection, which nothing reads. `progress` gets the bytes written and
    all there are. Raises ModelFileError where `origin` has no rows for an answer, and OSError.
    """
    head, keys = _head(origin)
    reader = GGUFReader(source)
    kept = [tensor for tensor in reader.tensors if tensor.name not in (HEAD, OUTPUT)]
    copied = [
        reader.data[field.offset : field.offset + sum(part.nbytes for part in field.parts)].tobytes()
        for name, field in reader.fields.items()
        if not name.startswith("GGUF.") and name not in keys
    ]
    alignment = reader.alignment
    sizes = [head.nbytes, *(int(tensor.n_bytes) for tensor in kept)]
    infos = [(HEAD, head.shape[::-1], GGMLQuantizationType.F32)]
    infos += [(tensor.name, tuple(tensor.shape.tolist()), tensor.tensor_type) for tensor in kept]
    with target.open("wb") as file, source.open("rb") as old:
        file.write(struct.pack("<4sIQQ", b"GGUF", 3, len(infos), len(copied) + len(keys)))
        file.writelines([*copied, *keys.values()])
        position = 0
        for (name, shape, kind), size in zip(infos, sizes, strict=True):
            file.write(_text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, int(kind), position))
            position += size + -size % alignment
        done, total = 0, sum(sizes)
        for pieces in ([head.tobytes()], *(_pieces(old, int(each.data_offset), int(each.n_bytes)) for each in kept)):
            file.write(bytes(-file.tell() % alignment))
            for piece in pieces:
                file.write(piece)
                done += len(piece)
                progress(done, total)


def _head(origin: Header) -> tuple[NDArray[np.float32], dict[str, bytes]]:
    """The rows (n_rows, n_embd), and the keys that tell llama.cpp what they are."""
    own = origin.tensors.get(HEAD)
    answers = answer_rows(origin)
    if own is not None:
        rows = read_rows(origin.path, own, range(prod(own.shape[1:])))
        stated = origin.metadata.get(LABELS)
        labels = tuple(stated) if isinstance(stated, tuple) else YES_NO[: len(rows)]
    else:
        assert answers.no is not None
        rows, labels = read_rows(origin.path, answers.tensor, (answers.yes, answers.no)), YES_NO
    keys = {_POOLING: _key(_POOLING, GGUFValueType.UINT32, struct.pack("<I", RANK)), LABELS: _texts(LABELS, labels)}
    if RERANK_TEMPLATE not in origin.metadata:
        keys[RERANK_TEMPLATE] = _key(RERANK_TEMPLATE, GGUFValueType.STRING, _text(TEMPLATE))
        keys[_TEMPLATES] = _texts(_TEMPLATES, ("rerank",))
    return rows, keys


def _pieces(file: BinaryIO, offset: int, size: int) -> Iterator[bytes]:
    for start in range(0, size, _AT_ONCE):
        file.seek(offset + start)
        yield file.read(min(_AT_ONCE, size - start))


def _texts(name: str, texts: Iterable[str]) -> bytes:
    raw = [_text(text) for text in texts]
    return _key(name, GGUFValueType.ARRAY, struct.pack("<IQ", int(GGUFValueType.STRING), len(raw)) + b"".join(raw))


def _key(name: str, kind: GGUFValueType, value: bytes) -> bytes:
    return _text(name) + struct.pack("<I", int(kind)) + value


def _text(text: str) -> bytes:
    raw = text.encode("utf-8")
    return struct.pack("<Q", len(raw)) + raw
