"""Read safetensors files: which tensors there are, and their numbers a few rows at a time.

Knows the file format (https://huggingface.co/docs/safetensors) and the index of shards; nothing of any model. A
header is judged before anything it says is believed. The safetensors package would do, but gives bf16 only to
those who have torch, and maps a file where this reads a piece.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from q3e_local.errors import ConversionError

# NumPy has no bf16: it is the upper half of a float32.
DTYPES: dict[str, np.dtype[Any]] = {"BF16": np.dtype("<u2"), "F16": np.dtype("<f2"), "F32": np.dtype("<f4")}

INDEX, SINGLE = "model.safetensors.index.json", "model.safetensors"
_NUMBERED = re.compile(r"model-(\d{5})-of-(\d{5})\.safetensors")
# The format's own limit.
_MAX_HEADER = 100_000_000
_LFS = b"version https://git-lfs"

REMEDY = "download it again"


@dataclass(frozen=True)
class StoredTensor:
    """One tensor of a safetensors file. `shape` as there, rows first; `offset` from the file's start."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    path: Path
    offset: int

    def rows(self, max_numbers: int) -> Iterator[NDArray[Any]]:
        """The numbers as stored, in pieces of whole rows, at most `max_numbers` each where a row is no longer."""
        n_columns = self.shape[-1]
        n_rows = prod(self.shape[:-1])
        step = max(1, max_numbers // n_columns)
        try:
            with self.path.open("rb") as file:
                file.seek(self.offset)
                for first in range(0, n_rows, step):
                    count = min(step, n_rows - first) * n_columns
                    numbers = np.fromfile(file, DTYPES[self.dtype], count)
                    if len(numbers) < count:
                        raise ConversionError(f"{self.path} has become shorter while it was read; {REMEDY}")
                    yield numbers.reshape(-1, n_columns)
        except OSError as error:
            raise ConversionError(f"cannot read {self.path}: {error.strerror or error}") from None


@dataclass(frozen=True)
class PickedRows:
    """Some rows of a stored matrix, by their numbers: a small tensor of its own."""

    tensor: StoredTensor
    numbers: tuple[int, ...]

    @property
    def name(self) -> str:
        return self.tensor.name

    @property
    def dtype(self) -> str:
        return self.tensor.dtype

    @property
    def path(self) -> Path:
        return self.tensor.path

    @property
    def shape(self) -> tuple[int, ...]:
        return len(self.numbers), self.tensor.shape[-1]

    def rows(self, max_numbers: int) -> Iterator[NDArray[Any]]:
        """The rows as stored, in the order of `numbers`. They are few: all of them in one piece."""
        n_columns = self.tensor.shape[-1]
        n_bytes = n_columns * DTYPES[self.dtype].itemsize
        at = (
            replace(self.tensor, shape=(1, n_columns), offset=self.tensor.offset + n * n_bytes) for n in self.numbers
        )
        yield np.concatenate([piece for row in at for piece in row.rows(n_columns)])


def widened(numbers: NDArray[Any]) -> NDArray[np.float32]:
    """Stored numbers as float32, exactly."""
    if numbers.dtype == DTYPES["BF16"]:
        wide: NDArray[np.float32] = (numbers.astype("<u4") << np.uint32(16)).view("<f4")
        return wide
    return numbers.astype(np.float32, copy=False)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object out of a checkpoint's folder. Raises ConversionError."""
    value = read_json_value(path)
    if not isinstance(value, dict):
        raise ConversionError(f"{path} is not a JSON object; {REMEDY}")
    return value


def read_json_value(path: Path) -> Any:
    """Any JSON out of a checkpoint's folder. Raises ConversionError."""
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise ConversionError(f"{path.parent} has no {path.name}; download the whole repository") from None
    except OSError as error:
        raise ConversionError(f"cannot read {path}: {error.strerror or error}") from None
    _refuse_lfs(path, raw)
    try:
        return json.loads(raw.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ConversionError(f"{path} is not JSON ({error}); {REMEDY}") from None


def read_shards(folder: Path) -> dict[str, StoredTensor]:
    """All tensors of a checkpoint, in the order of llama.cpp's converter: by file, and by name in a file.

    Raises ConversionError for a missing, broken or truncated file, and for an index that disagrees with its shards.
    """
    weight_map = _weight_map(folder)
    names = sorted(set(weight_map.values())) if weight_map is not None else _without_index(folder)
    tensors: dict[str, StoredTensor] = {}
    for name in names:
        for tensor in read_file(folder / name):
            if tensor.name in tensors:
                raise ConversionError(f"{folder} has {tensor.name} in {tensors[tensor.name].path.name} and in {name}")
            tensors[tensor.name] = tensor
    if weight_map is not None:
        _check_index(folder, weight_map, tensors)
    return tensors


def _weight_map(folder: Path) -> dict[str, str] | None:
    path = folder / INDEX
    if not path.exists():
        return None
    weight_map = read_json(path).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise ConversionError(f"{path} has no weight_map; {REMEDY}")
    for tensor, shard in weight_map.items():
        if not isinstance(shard, str) or not shard.endswith(".safetensors") or Path(shard).name != shard:
            raise ConversionError(f"{path} says that {tensor} is in {shard!r}, which is no file beside it; {REMEDY}")
    missing = sorted({shard for shard in weight_map.values() if not (folder / shard).is_file()})
    if missing:
        raise ConversionError(
            f"{folder} lacks {', '.join(missing)}, named in {INDEX}; download the rest of the repository"
        )
    return weight_map


def _without_index(folder: Path) -> list[str]:
    if (folder / SINGLE).is_file():
        return [SINGLE]
    numbered = [found for path in sorted(folder.iterdir()) if (found := _NUMBERED.fullmatch(path.name))]
    if not numbered:
        raise ConversionError(f"{folder} has no {SINGLE}; download the whole repository")
    n_shards = numbered[0][2]
    wanted = [f"model-{number:05d}-of-{n_shards}.safetensors" for number in range(1, int(n_shards) + 1)]
    here = {found[0] for found in numbered}
    missing = [name for name in wanted if name not in here]
    if missing or len(here) != len(wanted):
        lacking = ", ".join(missing[:3]) or "one set of shards, it has two"
        raise ConversionError(f"{folder} lacks {lacking}; download the whole repository")
    return wanted


def _check_index(folder: Path, weight_map: dict[str, str], tensors: dict[str, StoredTensor]) -> None:
    for name, shard in weight_map.items():
        found = tensors.get(name)
        if found is None or found.path.name != shard:
            place = "in none" if found is None else f"in {found.path.name}"
            raise ConversionError(f"{folder}: {INDEX} says that {name} is in {shard}, it is {place}; {REMEDY}")
    extra = [name for name in tensors if name not in weight_map]
    if extra:
        raise ConversionError(
            f"{folder}: {tensors[extra[0]].path.name} has {extra[0]}, which {INDEX} does not; {REMEDY}"
        )


def read_file(path: Path) -> list[StoredTensor]:
    """The tensors of one file by name. Raises ConversionError for anything but a whole, sound file."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            prefix = file.read(8)
            length = int.from_bytes(prefix, "little")
            _refuse_lfs(path, prefix + file.read(16))
            if len(prefix) < 8:
                raise ConversionError(f"{path} is truncated at {size} bytes; {REMEDY}")
            if length > min(size - 8, _MAX_HEADER):
                raise ConversionError(
                    f"{path} is truncated or no safetensors file: a header of {length:,} bytes in {size:,}; {REMEDY}"
                )
            file.seek(8)
            raw = file.read(length)
    except OSError as error:
        raise ConversionError(f"cannot read {path}: {error.strerror or error}") from None
    try:
        header = json.loads(raw.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ConversionError(f"{path} has a broken header ({error}); {REMEDY}") from None
    if not isinstance(header, dict):
        raise ConversionError(f"{path} has a broken header, not a JSON object; {REMEDY}")
    header.pop("__metadata__", None)
    data_offset = 8 + length
    tensors = [_tensor(path, name, entry, data_offset) for name, entry in header.items()]
    _check_extent(path, tensors, data_offset, size)
    return sorted(tensors, key=lambda tensor: tensor.name)


def _tensor(path: Path, name: str, entry: Any, data_offset: int) -> StoredTensor:
    entry = entry if isinstance(entry, dict) else {}
    dtype, shape, offsets = entry.get("dtype"), entry.get("shape"), entry.get("data_offsets")
    if not isinstance(dtype, str) or not _counts(shape) or not _counts(offsets) or len(offsets) != 2:
        raise ConversionError(f"{path} has a broken entry for {name!r}; {REMEDY}")
    if dtype not in DTYPES:
        raise ConversionError(
            f"{path} has {name!r} in {dtype}; {', '.join(DTYPES)} can be converted: take the unquantized checkpoint"
        )
    begin, end = offsets
    if end - begin != prod(shape) * DTYPES[dtype].itemsize:
        raise ConversionError(f"{path} has {end - begin:,} bytes for {name!r}, {dtype} of shape {shape}; {REMEDY}")
    return StoredTensor(name, dtype, tuple(shape), path, data_offset + begin)


def _counts(value: Any) -> bool:
    return isinstance(value, list) and all(type(each) is int and 0 <= each < 2**63 for each in value)


def _check_extent(path: Path, tensors: list[StoredTensor], data_offset: int, size: int) -> None:
    """The tensors lie one after the other, without gaps, to the file's end: so the format wants it."""
    position = data_offset
    for tensor in sorted(tensors, key=lambda tensor: (tensor.offset, prod(tensor.shape))):
        if tensor.offset != position:
            raise ConversionError(f"{path} has a gap or an overlap at {tensor.name!r}; {REMEDY}")
        position += prod(tensor.shape) * DTYPES[tensor.dtype].itemsize
    if position > size:
        raise ConversionError(f"{path} is truncated: {size:,} bytes of {position:,}; {REMEDY}")
    if position < size:
        raise ConversionError(f"{path} has {size - position:,} bytes too many; {REMEDY}")


def _refuse_lfs(path: Path, raw: bytes) -> None:
    if raw.startswith(_LFS):
        raise ConversionError(f"{path} is a Git LFS pointer, not the file itself; fetch it with `git lfs pull`")
