"""Make a GGUF: from a Hugging Face checkpoint, or from another GGUF by quantizing it.

Knows the steps, the disk and the landing of a file; leaves reading to checkpoint, writing to writer, and K-quants to
llama.cpp through quantizer. A reranker's head is F32 in each file that is made here. A file has the target's name
only when it is whole and was judged.
"""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from q3e_local.convert.checkpoint import read_checkpoint
from q3e_local.convert.head import write_with_head
from q3e_local.convert.quantizer import BITS, FILE_TYPES, run_quantizer
from q3e_local.convert.writer import WRITTEN, n_bytes, write_gguf
from q3e_local.errors import ConversionError, ModelError, NotEnoughDiskError, OptionError, OutputError
from q3e_local.files import sync
from q3e_local.gguf.header import read_header
from q3e_local.gguf.model_file import ModelInfo, inspect
from q3e_local.gguf.model_kind import HEAD, ModelKind

QUANTIZATIONS = tuple(FILE_TYPES)
DEFAULT = "q4_k_m"

OnStep = Callable[[str, int, int], None]  # the name of a step, the bytes that are done, and all there are

_HEADER_BYTES = 16 << 20  # more than any vocabulary takes


def convert(
    source: Path,
    target: Path,
    quantization: str = DEFAULT,
    *,
    name: str | None = None,
    kind: ModelKind | None = None,
    progress: OnStep = lambda step, done, total: None,
    force: bool = False,
) -> ModelInfo:
    """Write a checkpoint's folder as the GGUF file `target`. `name` becomes its general.name.

    `kind` is for a checkpoint that does not say whether it is an embedder or a reranker, or says it wrong.
    K-quants are made from an intermediate file in the checkpoint's own type, so that nothing is rounded twice.
    Raises ConversionError for what is wrong with the checkpoint, OutputError for what is wrong with the target,
    and NotEnoughDiskError before anything is written.
    """
    _check_options(quantization, target, force)
    checkpoint = read_checkpoint(source, kind)
    in_one_step = quantization in WRITTEN
    written_as = quantization if in_one_step else checkpoint.dtype.lower()
    needed = n_bytes(checkpoint, written_as) + _HEADER_BYTES
    if not in_one_step:
        needed += _estimate(checkpoint.n_params, quantization)
    with _landing(target, needed) as folder:
        path = folder / "converted.gguf"
        write_gguf(checkpoint, path, written_as, name, partial(progress, "convert"))
        if not in_one_step:
            _judged(path, checkpoint.kind)
            path = _quantized(path, folder, quantization, checkpoint.kind, progress)
        return _land(path, target, checkpoint.kind, force)


def quantize(
    source: Path,
    target: Path,
    quantization: str,
    *,
    kind: ModelKind | None = None,
    progress: OnStep = lambda step, done, total: None,
    force: bool = False,
) -> ModelInfo:
    """Write the GGUF `source` once more, as `target`, in another type. `kind` is for a source that states none.

    A reranker without a head of its own gets one, of its two rows. Raises ModelError for a source that is neither a
    Qwen3-Embedding nor a Qwen3-Reranker GGUF, or is quantized already, OutputError for what is
    wrong with the target, and NotEnoughDiskError before anything is written.
    """
    _check_options(quantization, target, force)
    kind = inspect(source, kind).kind
    if target.exists() and target.samefile(source):
        raise OutputError(f"{target} is the source itself; name another file")
    header = read_header(source)
    kinds = sorted({tensor.type_name for tensor in header.tensors.values()} - {"F32", "F16", "BF16"})
    if kinds:
        raise ConversionError(
            f"{source} is quantized already ({', '.join(kinds)}), and loses more by being quantized twice; "
            "take the f16, bf16 or f32 file"
        )
    n_params = sum(tensor.size_bytes for tensor in header.tensors.values()) // 2  # F32 counts twice: room to spare
    needed = _estimate(n_params, quantization)
    # llama.cpp leaves the head as it is only in the quantized types, and makes none.
    makes_head = kind == "reranker" and (HEAD not in header.tensors or quantization in ("f32", "f16", "bf16"))
    with _landing(target, 2 * needed if makes_head else needed) as folder:
        path = _quantized(source, folder, quantization, kind, progress)
        if makes_head:
            quantized, path = path, folder / "headed.gguf"
            write_with_head(quantized, path, header, partial(progress, "add the head"))
        return _land(path, target, kind, force)


def _check_options(quantization: str, target: Path, force: bool) -> None:
    if quantization not in FILE_TYPES:
        raise OptionError(f"there is no quantization {quantization!r}; choose from {', '.join(FILE_TYPES)}")
    if target.is_dir():
        raise OutputError(f"{target} is a folder; name a file in it")
    if target.exists() and not target.is_file():
        raise OutputError(f"{target} is no regular file; name another")
    if not target.absolute().parent.is_dir():
        raise OutputError(f"there is no folder {target.parent} to write {target.name} into")
    _check_free(target, force)


def _check_free(target: Path, force: bool) -> None:
    if target.exists() and not force:
        raise OutputError(f"{target} exists; replace it with --force (force=True), or choose another name")


def _estimate(n_params: int, quantization: str) -> int:
    return int(n_params * BITS[quantization] / 8) + _HEADER_BYTES


@contextmanager
def _landing(target: Path, needed: int) -> Iterator[Path]:
    """A folder beside the target for unfinished files. It is gone afterwards, whatever happens."""
    parent = target.absolute().parent
    free = shutil.disk_usage(parent).free
    if needed > free:
        raise _no_space(target, needed, free)
    try:
        with TemporaryDirectory(prefix="q3e-convert-", dir=parent) as folder:
            yield Path(folder)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise _no_space(target, needed, shutil.disk_usage(parent).free) from None
        raise OutputError(f"cannot write {target}: {error.strerror or error}") from None


def _no_space(target: Path, needed: int, free: int) -> NotEnoughDiskError:
    return NotEnoughDiskError(
        f"making {target} takes {needed / 1e9:.1f} GB of disk for a while, {target.absolute().parent} has "
        f"{free / 1e9:.1f} GB free; make room, or name a file on another disk"
    )


def _quantized(source: Path, folder: Path, quantization: str, kind: ModelKind, progress: OnStep) -> Path:
    path = folder / "quantized.gguf"
    try:
        run_quantizer(read_header(source), path, quantization, kind, partial(progress, "quantize"))
    except ConversionError as error:
        # llama.cpp says little when the disk is full.
        if shutil.disk_usage(folder).free < 1 << 20:
            raise OSError(errno.ENOSPC, str(error)) from None
        raise
    return path


def _judged(path: Path, kind: ModelKind) -> ModelInfo:
    try:
        return inspect(path, kind)
    except ModelError as error:
        raise ConversionError(f"what was written is not a usable model, please report this: {error}") from error


def _land(path: Path, target: Path, kind: ModelKind, force: bool) -> ModelInfo:
    """Judge the finished file, and give it its name."""
    info = _judged(path, kind)
    sync(path)
    _check_free(target, force)
    path.replace(target)
    return replace(info, path=target)
