"""Files that are torn, cut or odd: each is an error that names its fault, and none ends the process."""

from __future__ import annotations

import struct
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st
from rewriting import WORDS, rewrite

from q3e_local.errors import ModelFileError, WrongModelError
from q3e_local.gguf.header import read_header
from q3e_local.gguf.model_file import inspect


def torn(at: int, new: bytes) -> Callable[[bytes], bytes]:
    return lambda data: data[:at] + new + data[at + len(new) :]


def cut_at(mark: bytes, after: int = 0) -> Callable[[bytes], bytes]:
    return lambda data: data[: data.index(mark) + after]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda data: b"", "is not a GGUF file: an empty file"),
        (lambda data: b"GG", "is not a GGUF file: it begins with b'GG'"),
        (lambda data: b"Once upon a time", "is not a GGUF file: it begins with b'Once'"),
        (lambda data: data[:4], "is truncated or corrupt: version needs 4 bytes at byte 4 of 4"),
        (lambda data: data[:20], "is truncated or corrupt: key count needs 8 bytes"),
        (cut_at(b"general.name"), "is truncated or corrupt: key needs 12 bytes"),
        (cut_at(b"tokenizer.ggml.tokens", 1000), "is truncated or corrupt: tokenizer.ggml.tokens"),
        (cut_at(b"blk.0.ffn_up", 30), "is truncated or corrupt: shape of blk.0.ffn_up.weight"),
        (
            lambda data: data[:-1],
            r"is truncated: output_norm.weight ends at byte [\d,]+, the file at [\d,]+; get the",
        ),
        (lambda data: data[: len(data) // 2], "is truncated: token_embd.weight ends at byte"),
        (torn(4, struct.pack("<I", 1)), "is GGUF version 1; versions 2 and 3 can be read$"),
        (torn(4, struct.pack("<I", 4)), "is GGUF version 4; versions 2 and 3 can be read$"),
        (torn(4, struct.pack(">I", 3)), "a big-endian file cannot be used here"),
        (torn(8, struct.pack("<Q", 2**63)), r"9,223,372,036,854,775,808 tensors and \d+ keys announced"),
        (torn(16, struct.pack("<Q", 2**40)), "and 1,099,511,627,776 keys announced"),
        (lambda data: data.replace(b"general.name", b"general\xff\xffame", 1), "key is not UTF-8"),
    ],
)
def test_a_broken_file_is_named_with_its_fault(small, tmp_path, change, says):
    path = tmp_path / "broken.gguf"
    path.write_bytes(change(small.read_bytes()))
    with pytest.raises(ModelFileError, match=rf"broken\.gguf .*{says}"):
        inspect(path)


def test_no_file_and_a_folder_are_named(tmp_path):
    with pytest.raises(ModelFileError, match=r"^there is no file .*nothing\.gguf$"):
        inspect(tmp_path / "nothing.gguf")
    with pytest.raises(ModelFileError, match=r"is a directory; name the \.gguf file in it$"):
        inspect(tmp_path)


# Any damage at all

HEADER = range(4, 5_700)  # of `small`, after the magic; a test below holds it to that

WILD = st.sampled_from([0x00, 0x01, 0x08, 0x09, 0x7F, 0x80, 0xFF]) | st.integers(0, 255)

DAMAGE = st.lists(st.tuples(st.sampled_from(HEADER), WILD), min_size=1, max_size=4)


def damaged(data: bytes, changes: list[tuple[int, int]]) -> bytes:
    torn = bytearray(data)
    for at, byte in changes:
        torn[at] = byte
    return bytes(torn)


@settings(max_examples=500)
@given(changes=DAMAGE, length=st.none() | st.integers(0, 60_000))
def test_a_damaged_file_is_an_error_of_ours_or_a_model(small, changes, length):
    path = small.with_name("damaged.gguf")
    path.write_bytes(damaged(small.read_bytes(), changes)[:length])
    try:
        outcome: object = inspect(path)
    except (ModelFileError, WrongModelError) as error:
        outcome = error
    assert str(path) in str(outcome)


def test_damage_is_done_to_the_header(small):
    assert HEADER.stop in range(read_header(small).data_offset - 100, read_header(small).data_offset)


# Keys with odd values, which llama.cpp either refuses or can live with.
ODD: list[dict[str, Any]] = [
    {"tokenizer.ggml.merges": None},
    {"tokenizer.ggml.merges": [1, 2, 3]},
    {"tokenizer.ggml.merges": ["", " ", "  ", "a", "a b c", "\u4e00 \u4e00"]},
    {"tokenizer.ggml.tokens": [*WORDS[:-1], tiny.END], "tokenizer.ggml.token_type": [-7, 99, 6, 5, *[2] * 259, 3]},
    {"tokenizer.ggml.tokens": ["\u4e00", "\x00", " ", *WORDS[:-4], tiny.END], "tokenizer.ggml.token_type": [3] * 264},
    {"tokenizer.ggml.scores": [0.5]},
    {"tokenizer.ggml.eos_token_id": "none"},
    {"tokenizer.ggml.bos_token_id": 2**32 - 1, "tokenizer.ggml.padding_token_id": 10_000},
    {"tokenizer.ggml.add_bos_token": 3},
    {"general.name": 5},
    {"general.file_type": 10_000},
    {"general.quantization_version": "new"},
    {"qwen3.context_length": 1},
    {"qwen3.context_length": 2**31 - 1},
    {"qwen3.rope.freq_base": 1e11},
    {"qwen3.attention.sliding_window": 3},
    {"qwen3.pooling_type": 3, "qwen3.classifier.output_labels": ["yes", "no"]},
]


def test_no_file_that_passes_for_a_model_ends_the_process(small, tmp_path):
    data, rng = small.read_bytes(), np.random.default_rng(0)
    for number in range(1000):
        changes = [(int(rng.choice(HEADER)), int(rng.integers(256))) for _ in range(rng.integers(1, 4))]
        (tmp_path / f"damaged-{number}.gguf").write_bytes(damaged(data, changes))
    for number, keys in enumerate(ODD):
        rewrite(small, tmp_path / f"odd-{number}.gguf", keys)
    script = """
import logging, sys
from pathlib import Path
from q3e_local.embedding.engine import EngineConfig
from q3e_local.errors import BadVectorError, ModelError
from q3e_local.llama.engine import LlamaEngine
logging.disable()
n_loaded = 0
for path in sorted(Path(sys.argv[1]).glob("*.gguf")):
    print(path.name, flush=True)
    try:
        with LlamaEngine(path, EngineConfig(n_batch=8, n_threads=1)) as engine:
            n_loaded += 1
            for text in ("", "The capital <|im_end|>\\n of China: e\u0301 1"):
                engine.decode([[*engine.tokenize(text), engine.eos_id][-engine.n_ctx_max:]])
    except (ModelError, BadVectorError):
        pass
print("loaded", n_loaded)
"""
    command = [sys.executable, "-c", script, tmp_path]
    answer = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", timeout=60)
    last = answer.stdout.splitlines()[-1]  # the file it died on, if it did
    assert (answer.returncode, answer.stderr) == (0, ""), last
    assert int(last.removeprefix("loaded ")) > 50


@pytest.mark.skipif(sys.platform == "win32", reason="needs a sparse file")
@pytest.mark.parametrize("kind", ["array", "string"])
def test_a_huge_broken_header_costs_little_memory(tmp_path, kind):
    path, length = tmp_path / "huge.gguf", 3 << 30
    key = struct.pack("<Q", 1) + b"k"
    value = struct.pack("<IIQ", 9, 0, length) if kind == "array" else struct.pack("<IQ", 8, length)
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + key + value)
    with path.open("r+b") as file:
        file.truncate(length + (1 << 20))
    script = f"""
import tracemalloc
from pathlib import Path
from q3e_local.errors import ModelFileError
from q3e_local.gguf.model_file import inspect
tracemalloc.start()
try:
    inspect(Path({str(path)!r}))
except ModelFileError as error:
    print(error)
print(tracemalloc.get_traced_memory()[1] >> 20)
"""
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    said, peak_mb = answer.stdout.splitlines()
    assert "truncated or corrupt" in said
    assert int(peak_mb) < 100  # 3,072 and more, should the length be believed
