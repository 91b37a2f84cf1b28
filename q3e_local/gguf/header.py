"""Read the header of a GGUF file: metadata, vocabulary, tensor table.

Knows the file format (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md) and nothing of any model
family. The `gguf` package reads headers too, but builds an array for each of 300,000 vocabulary strings
(seconds, where a start may cost a tenth of one), and takes a broken file's word for its lengths.
"""

from __future__ import annotations

import hashlib
import mmap
import struct
from array import array
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any

from q3e_local.errors import ModelFileError

# ggml type: name, numbers in a block, bytes of a block. Only the types that llama.cpp computes with.
TENSOR_TYPES = {
    0: ("F32", 1, 4), 1: ("F16", 1, 2), 30: ("BF16", 1, 2),
    2: ("Q4_0", 32, 18), 3: ("Q4_1", 32, 20), 6: ("Q5_0", 32, 22), 7: ("Q5_1", 32, 24), 8: ("Q8_0", 32, 34),
    10: ("Q2_K", 256, 84), 11: ("Q3_K", 256, 110), 12: ("Q4_K", 256, 144), 13: ("Q5_K", 256, 176),
    14: ("Q6_K", 256, 210),
    16: ("IQ2_XXS", 256, 66), 17: ("IQ2_XS", 256, 74), 18: ("IQ3_XXS", 256, 98), 19: ("IQ1_S", 256, 50),
    20: ("IQ4_NL", 32, 18), 21: ("IQ3_S", 256, 110), 22: ("IQ2_S", 256, 82), 23: ("IQ4_XS", 256, 136),
    29: ("IQ1_M", 256, 56),
}  # fmt: skip

_SCALARS = {
    0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d",
}  # fmt: skip
_STRING, _ARRAY, _INT32 = 8, 9, 5
_LENGTH = struct.Struct("<Q")

# Far above any real file, and so low that a hostile file is read quickly.
_MAX_HEADER = 256 << 20  # a real header has 6 MB; also the memory that reading may take
_FEW_STRINGS = 16
_MAX_KEYS, _MAX_TENSORS, _MAX_STRINGS, _MAX_NAME = 4_096, 65_536, 2_000_000, 65_535


@dataclass(frozen=True)
class Tensor:
    """One entry of the tensor table. `shape` in GGUF order, the row length first; `offset` from the file's start."""

    name: str
    shape: tuple[int, ...]
    type_name: str
    offset: int
    size_bytes: int


class TokenTable:
    """The vocabulary's texts by id, decoded when they are read."""

    def __init__(self, raw: bytes, starts: list[int], types: Sequence[int]) -> None:
        self._raw, self._starts, self.types = raw, starts, types

    def __len__(self) -> int:
        return len(self._starts)

    def __getitem__(self, token_id: int) -> str:
        start = self._starts[token_id]
        (length,) = _LENGTH.unpack_from(self._raw, start - 8)
        return self._raw[start : start + length].decode("utf-8", "replace")

    def repeated(self) -> int | None:
        """The id of a text that is empty or has a lower id too, or None."""
        raw, starts = self._raw, self._starts
        texts = [raw[start : after - 8] for start, after in zip(starts, [*starts[1:], len(raw) + 8], strict=True)]
        seen = {b""}
        if len(seen.union(texts)) == len(texts) + 1:  # the usual case, seen quickly
            return None
        for token_id, text in enumerate(texts):
            if text in seen:
                return token_id
            seen.add(text)
        return None

    def index(self, text: str) -> int | None:
        """The id of this text, or None; the first id, should a file repeat the text."""
        raw = text.encode("utf-8")
        needle, position = _LENGTH.pack(len(raw)) + raw, -1
        while (position := self._raw.find(needle, position + 1)) >= 0:
            token_id = bisect_left(self._starts, position + 8)
            if token_id < len(self._starts) and self._starts[token_id] == position + 8:
                return token_id
        return None


@dataclass(frozen=True)
class Header:
    """What a file says about itself.

    `metadata` has scalars and strings, of an array of a few strings a tuple, and None for any other array: of long
    arrays only the vocabulary is kept.
    """

    path: Path
    size_bytes: int
    data_offset: int
    metadata: dict[str, Any]
    tokens: TokenTable
    tensors: dict[str, Tensor]


class _Walk:
    """A position in the file that refuses to leave it."""

    def __init__(self, data: mmap.mmap, path: Path) -> None:
        self.data = data
        self.path = path
        self.end = len(data)
        self.limit = min(self.end, _MAX_HEADER)
        self.position = 0

    def broken(self, what: str) -> ModelFileError:
        return ModelFileError(
            f"{self.path} is truncated or corrupt: {what} at byte {self.position:,} of {self.end:,}; get it again"
        )

    def need(self, n_bytes: int, what: str) -> None:
        if n_bytes > self.limit - self.position:
            raise self.broken(f"{what} needs {n_bytes:,} bytes")

    def scalar(self, fmt: str, what: str) -> Any:
        (value,) = struct.unpack(fmt, self.take(struct.calcsize(fmt), what))
        return value

    def string(self, what: str, limit: int | None = None) -> str:
        length = self.scalar("<Q", what)
        if limit is not None and length > limit:
            raise self.broken(f"{what} of {length:,} bytes")
        try:
            return self.take(length, what).decode("utf-8")
        except UnicodeDecodeError:
            raise self.broken(f"{what} is not UTF-8") from None

    def take(self, n_bytes: int, what: str) -> bytes:
        self.need(n_bytes, what)
        self.position += n_bytes
        return self.data[self.position - n_bytes : self.position]

    def strings(self, count: int, what: str) -> list[int]:
        """Step over `count` strings. Returns where the text of each begins, counted from the first."""
        if count > _MAX_STRINGS:
            raise self.broken(f"{what} of {count:,} strings")
        data, begin, end = self.data, self.position, self.limit
        position, starts, unpack = begin, [], _LENGTH.unpack_from
        for _ in range(count):
            if position + 8 > end:
                raise self.broken(what)
            starts.append(position + 8 - begin)
            position += 8 + unpack(data, position)[0]
        self.position = begin
        self.need(position - begin, what)
        self.position = position
        return starts


def read_header(path: Path) -> Header:
    """Read metadata and tensor table. Raises ModelFileError for anything that is not a whole, sound GGUF."""
    try:
        with path.open("rb") as file:
            magic = file.read(4)
            if magic != b"GGUF":
                seen = "an empty file" if not magic else f"it begins with {magic!r}"
                raise ModelFileError(f"{path} is not a GGUF file: {seen}")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return _read(_Walk(data, path))
    except FileNotFoundError:
        raise ModelFileError(f"there is no file {path}") from None
    except OSError as error:
        if path.is_dir():
            raise ModelFileError(f"{path} is a directory; name the .gguf file in it") from None
        raise ModelFileError(f"cannot read {path}: {error.strerror or error}") from None


def _read(walk: _Walk) -> Header:
    walk.position = 4
    version = walk.scalar("<I", "version")
    if version not in (2, 3):
        hint = "; a big-endian file cannot be used here" if version in (2 << 24, 3 << 24) else ""
        raise ModelFileError(f"{walk.path} is GGUF version {version}; versions 2 and 3 can be read{hint}")
    n_tensors, n_keys = walk.scalar("<Q", "tensor count"), walk.scalar("<Q", "key count")
    if n_tensors > _MAX_TENSORS or n_keys > _MAX_KEYS:
        raise walk.broken(f"{n_tensors:,} tensors and {n_keys:,} keys announced")

    metadata: dict[str, Any] = {}
    raw, starts, types = b"", [], array("i")
    for _ in range(n_keys):
        key = walk.string("key", _MAX_NAME)
        kind = walk.scalar("<I", f"type of {key}")
        if kind == _STRING:
            metadata[key] = walk.string(key)
            continue
        if kind in _SCALARS:
            metadata[key] = walk.scalar(_SCALARS[kind], key)
            continue
        if kind != _ARRAY:
            raise walk.broken(f"{key} has unknown type {kind}")
        metadata[key] = None
        item, count = walk.scalar("<I", f"item type of {key}"), walk.scalar("<Q", f"length of {key}")
        if item == _STRING:
            begin = walk.position
            begins = walk.strings(count, key)
            if key == "tokenizer.ggml.tokens":
                raw, starts = walk.data[begin : walk.position], begins
            elif count <= _FEW_STRINGS:
                few = TokenTable(walk.data[begin : walk.position], begins, ())
                metadata[key] = tuple(few[i] for i in range(count))
        elif item in _SCALARS:
            numbers = walk.take(struct.calcsize(_SCALARS[item]) * count, key)
            if key == "tokenizer.ggml.token_type" and item == _INT32:
                types.frombytes(numbers)
        else:
            raise walk.broken(f"{key} is an array of unknown type {item}")

    tensors = {tensor.name: tensor for tensor in _tensors(walk, n_tensors)}
    alignment = metadata.get("general.alignment", 32)
    if not isinstance(alignment, int) or alignment <= 0 or alignment % 8:
        raise walk.broken(f"general.alignment is {alignment!r}")
    data_offset = -(-walk.position // alignment) * alignment
    for name, tensor in tensors.items():
        tensors[name] = tensor = replace(tensor, offset=data_offset + tensor.offset)
        if tensor.offset + tensor.size_bytes > walk.end:
            raise ModelFileError(
                f"{walk.path} is truncated: {name} ends at byte {tensor.offset + tensor.size_bytes:,}, "
                f"the file at {walk.end:,}; get the file again"
            )
    return Header(walk.path, walk.end, data_offset, metadata, TokenTable(raw, starts, types), tensors)


def _tensors(walk: _Walk, count: int) -> Iterator[Tensor]:
    for _ in range(count):
        name = walk.string("tensor name", _MAX_NAME)
        n_dims = walk.scalar("<I", f"dimensions of {name}")
        if not 1 <= n_dims <= 4:
            raise walk.broken(f"{name} has {n_dims} dimensions")
        shape = tuple(walk.scalar("<Q", f"shape of {name}") for _ in range(n_dims))
        kind = walk.scalar("<I", f"type of {name}")
        offset = walk.scalar("<Q", f"offset of {name}")
        if kind not in TENSOR_TYPES:
            raise walk.broken(f"{name} has tensor type {kind}, unknown here,")
        type_name, block, block_bytes = TENSOR_TYPES[kind]
        n_numbers = prod(shape)
        if n_numbers == 0 or shape[0] % block:
            raise walk.broken(f"{name} has shape {shape} in {type_name}")
        yield Tensor(name, shape, type_name, offset, n_numbers // block * block_bytes)


def fingerprint(header: Header) -> str:
    """SHA-256 over size, header, and the first 4 KiB of every tensor: it names a model without reading gigabytes.

    Files of other weights, quantization or vocabulary have another fingerprint. Damage inside a tensor does not show:
    a download is checked by its full SHA-256.
    """
    digest = hashlib.sha256(str(header.size_bytes).encode("ascii"))
    with header.path.open("rb") as file:
        digest.update(file.read(header.data_offset))
        for tensor in header.tensors.values():
            file.seek(tensor.offset)
            digest.update(file.read(min(tensor.size_bytes, 4096)))
    return digest.hexdigest()
