"""K-quants through llama.cpp: types as the published recipe has them, and a process that never outlives its errand.

Tiny widths, real layer counts.
"""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
import tiny
from checkpoints import expected_tensors, names_in, tensors_in
from command import PROGRAM, run
from gguf import GGUFReader
from gguf.quants import dequantize
from oracle import Config
from tokenizers import Tokenizer

from q3e_local import convert as convert_module
from q3e_local.convert import convert, quantize, quantizer
from q3e_local.errors import ConversionError, ModelFileError, NotEnoughDiskError, OutputError, WrongModelError

# Layers whose attn_v and ffn_down are kept in Q6_K: the first and last eighth, and every third between.
FINER = {
    28: (0, 1, 2, 5, 8, 11, 14, 17, 20, 23, 24, 25, 26, 27),
    36: (0, 1, 2, 3, 6, 9, 12, 15, 18, 21, 24, 27, 30, 31, 32, 33, 34, 35),
}
COARSE = {"q4_k_m": "Q4_K", "q5_k_m": "Q5_K", "q6_k": "Q6_K"}

posix = pytest.mark.skipif(os.name == "nt", reason="signals")


def kinds(path: Path) -> dict[str, str]:
    return {tensor.name: tensor.tensor_type.name for tensor in GGUFReader(path).tensors}


# The recipe


@pytest.mark.parametrize("n_layer", [28, 36])
@pytest.mark.parametrize("quantization", ["q4_k_m", "q5_k_m", "q6_k"])
def test_types_are_those_of_the_recipe(checkpoint, tmp_path, n_layer, quantization):
    config = Config(n_layer=n_layer, n_embd=256, n_ff=256, n_head=4, n_head_kv=2, head_dim=64)
    convert(checkpoint(tiny.tiny_weights(config), config), tmp_path / "out.gguf", quantization)
    coarse = COARSE[quantization]
    expected = {"output_norm.weight": "F32", "token_embd.weight": "Q6_K"}
    for layer in range(n_layer):
        finer = "Q6_K" if layer in FINER[n_layer] else coarse
        types = {"attn_v": finer, "ffn_down": finer}
        types |= dict.fromkeys(("attn_q", "attn_k", "attn_output", "ffn_gate", "ffn_up"), coarse)
        types |= dict.fromkeys(("attn_norm", "attn_q_norm", "attn_k_norm", "ffn_norm"), "F32")
        expected |= {f"blk.{layer}.{name}.weight": types[name] for name in sorted(types)}
    assert list(kinds(tmp_path / "out.gguf").items()) == list(expected.items())


def test_quantizing_moves_two_keys_to_the_end(checkpoint, tmp_path):
    folder = checkpoint()
    for name in ("bf16", "q4_k_m"):
        convert(folder, tmp_path / f"{name}.gguf", name)
    before, after = (list(GGUFReader(tmp_path / f"{name}.gguf").fields) for name in ("bf16", "q4_k_m"))
    moved = ["general.quantization_version", "general.file_type"]
    assert after == [key for key in before if key not in moved] + moved
    assert GGUFReader(tmp_path / "q4_k_m.gguf").fields["general.file_type"].contents() == 15


@pytest.mark.parametrize("dtype", ["BF16", "F16", "F32"])
def test_k_quants_are_made_of_the_numbers_in_the_checkpoint(checkpoint, tmp_path, weights, dtype):
    """An f16 file between would lose what is small in bf16, and half of f32."""
    rng = np.random.default_rng(0)
    scaled = {name: weight * 10.0 ** rng.uniform(-6, 0, weight.shape) for name, weight in weights.items()}
    folder = checkpoint(scaled, dtype=dtype)
    convert(folder, tmp_path / "direct.gguf", "q4_k_m")
    convert(folder, tmp_path / "f32.gguf", "f32")
    quantize(tmp_path / "f32.gguf", tmp_path / "exact.gguf", "q4_k_m")
    assert (tmp_path / "direct.gguf").read_bytes() == (tmp_path / "exact.gguf").read_bytes()


def test_the_vectors_are_what_the_oracle_makes_of_the_quantized_weights(checkpoint, cosines, tmp_path, weights):
    convert(checkpoint(n_shards=3), tmp_path / "out.gguf")
    quantized = {}
    for tensor in GGUFReader(tmp_path / "out.gguf").tensors:
        (name,) = [name for name in weights if tiny._gguf_name(name) == tensor.name]
        quantized[name] = dequantize(tensor.data, tensor.tensor_type).reshape(weights[name].shape)
        lost = np.linalg.norm(quantized[name] - weights[name]) / np.linalg.norm(weights[name])
        assert lost < {"F32": 0.004, "Q6_K": 0.02, "Q4_K": 0.08}[tensor.tensor_type.name], name
    # What is left is that llama.cpp computes with activations of 8 bits.
    assert min(cosines(tmp_path / "out.gguf", quantized)) > 0.997


# From one GGUF to another


@pytest.mark.parametrize("quantization", ["f32", "f16", "bf16", "q8_0"])
def test_llama_cpp_writes_the_bytes_the_gguf_package_does(tiny_gguf, tmp_path, weights, quantization):
    quantize(tiny_gguf("f32"), tmp_path / "out.gguf", quantization)
    assert tensors_in(tmp_path / "out.gguf") == expected_tensors(weights, quantization)


@pytest.mark.parametrize("source", ["f32", "f16"])
def test_progress_goes_to_the_end(tiny_gguf, tmp_path, source):
    calls = []
    info = quantize(tiny_gguf(source), tmp_path / "out.gguf", "q4_k_m", progress=lambda *call: calls.append(call))
    assert info.path == tmp_path / "out.gguf"
    assert calls == sorted(calls)
    sizes = [tensor.n_bytes for tensor in GGUFReader(tiny_gguf(source)).tensors]
    assert (len(calls), calls[-1]) == (len(sizes), ("quantize", sum(sizes), sum(sizes)))


@pytest.mark.parametrize(("source", "kind"), [("q8_0", "Q8_0"), ("q4_k_m", "Q4_K, Q6_K")])
def test_a_quantized_file_is_not_quantized_again(tiny_gguf, tmp_path, source, kind):
    with pytest.raises(ConversionError, match=rf"is quantized already \({kind}\).*take the f16, bf16 or f32 file"):
        quantize(tiny_gguf(source), tmp_path / "out.gguf", "q4_k_m")
    assert names_in(tmp_path) == []


def test_sources_and_targets_that_cannot_be(tiny_gguf, tmp_path):
    with pytest.raises(ModelFileError, match="there is no file"):
        quantize(tmp_path / "no.gguf", tmp_path / "out.gguf", "q4_k_m")
    with pytest.raises(WrongModelError, match="states no pooling"):
        quantize(tiny_gguf("f16", pooling=None), tmp_path / "out.gguf", "q4_k_m")
    with pytest.raises(OutputError, match="is the source itself"):
        quantize(tiny_gguf("f16"), tiny_gguf("f16"), "q4_k_m", force=True)
    with pytest.raises(OutputError, match="exists"):
        quantize(tiny_gguf("f16"), tiny_gguf("f32"), "q4_k_m")
    assert names_in(tmp_path) == []


@pytest.mark.parametrize("is_relative", [False, True])
def test_a_path_may_have_names_in_any_script_and_be_relative(tiny_gguf, tmp_path, monkeypatch, is_relative):
    monkeypatch.chdir(tmp_path)
    folder = Path("模型 ü") if is_relative else tmp_path / "模型 ü"
    folder.mkdir()
    (folder / "量化前.gguf").write_bytes(tiny_gguf("f16").read_bytes())
    quantize(folder / "量化前.gguf", folder / "量化后.gguf", "q4_k_m")
    assert names_in(folder) == ["量化前.gguf", "量化后.gguf"]


def test_the_command_quantizes(tiny_gguf, tmp_path):
    result = run("quantize", tiny_gguf("f16"), tmp_path / "out.gguf", "q6_k")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "out.gguf: Tiny Qwen3 Embedding, Q6_K, " in result.stderr
    assert run("quantize", tiny_gguf("f16"), tmp_path / "out.gguf", "q6_k").exit_code == 1
    assert run("quantize", tiny_gguf("f16"), tmp_path / "out.gguf", "q6_k", "--force", "-q").output == ""
    assert run("quantize", tiny_gguf("f16"), tmp_path / "out.gguf", "q3_k").exit_code == 2


# When it fails


def test_what_llama_cpp_complains_of_is_in_the_error(tiny_gguf, tmp_path, monkeypatch):
    monkeypatch.setitem(quantizer.FILE_TYPES, "q4_k_m", 999)
    said = r"quantizer ended with exit code 1: quantizing failed.*invalid output file type 999"
    with pytest.raises(ConversionError, match=said):
        quantize(tiny_gguf("f16"), tmp_path / "out.gguf", "q4_k_m")
    assert names_in(tmp_path) == []


def test_a_full_disk_is_named_whatever_llama_cpp_says(tiny_gguf, tmp_path, monkeypatch):
    free = iter([10**12, 0, 0])
    monkeypatch.setitem(quantizer.FILE_TYPES, "q4_k_m", 999)
    monkeypatch.setattr(convert_module.shutil, "disk_usage", lambda _: SimpleNamespace(free=next(free)))
    with pytest.raises(NotEnoughDiskError, match="make room"):
        quantize(tiny_gguf("f16"), tmp_path / "out.gguf", "q4_k_m")


def test_a_half_written_file_does_not_pass(tiny_gguf, tmp_path, monkeypatch):
    def half(source: object, target: Path, *_: object) -> None:
        target.write_bytes(tiny_gguf("q4_k_m").read_bytes()[:-1000])

    monkeypatch.setattr(convert_module, "run_quantizer", half)
    said = r"what was written is not a usable model, please report this: .* truncated"
    with pytest.raises(ConversionError, match=said):
        quantize(tiny_gguf("f16"), tmp_path / "out.gguf", "q4_k_m")
    assert names_in(tmp_path) == []


@posix
def test_a_native_abort_is_an_error(tiny_gguf, tmp_path, monkeypatch):
    script = tmp_path / "python"
    script.write_text("#!/bin/sh\necho GGML_ASSERT of some kind >&2\nkill -ABRT $$\n")
    script.chmod(0o755)
    monkeypatch.setattr(quantizer.sys, "executable", str(script))
    said = r"was ended by SIGABRT \(llama.cpp stopped itself\): GGML_ASSERT of some kind"
    with pytest.raises(ConversionError, match=said):
        quantize(tiny_gguf("f16"), tmp_path / "out.gguf", "q4_k_m")
    assert names_in(tmp_path) == ["python"]


# When it is stopped


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory, tokenizer: Tokenizer) -> Path:
    """A file that takes seconds to quantize."""
    config = Config(n_layer=6, n_embd=1024, n_ff=4096, n_head=8, n_head_kv=8, head_dim=128)
    weights = tiny.tiny_weights(config)
    return tiny.write_gguf(tmp_path_factory.mktemp("slow") / "f16.gguf", weights, config, tokenizer, "f16")


@pytest.fixture
def running(slow: Path, tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], psutil.Process]]:
    """`q3e-local quantize` in a new session, when it has begun to write, and the process of its quantizer."""
    command = [*PROGRAM, "quantize", str(slow), str(tmp_path / "out.gguf"), "q4_k_m"]
    parent = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    try:
        for _ in range(3000):
            begun = [path for path in tmp_path.glob("q3e-convert-*/quantized.gguf") if path.stat().st_size > 10_000]
            if begun:
                break
            assert parent.poll() is None, parent.communicate()
            time.sleep(0.01)
        (child,) = psutil.Process(parent.pid).children()
        yield parent, child
    finally:
        parent.kill()
        parent.communicate()


def gone(process: psutil.Process) -> bool:
    try:
        process.wait(60)
    except psutil.TimeoutExpired:
        return False
    return True


@posix
@pytest.mark.parametrize(
    ("name", "reaches"), [("SIGINT", "kill"), ("SIGTERM", "kill"), ("SIGHUP", "kill"), ("SIGINT", "killpg")]
)
def test_stopping_the_command_stops_llama_cpp_and_leaves_nothing(running, tmp_path, name, reaches):
    """`killpg` sends the signal to both processes, as the terminal does for Ctrl-C."""
    parent, child = running
    getattr(os, reaches)(parent.pid, getattr(signal, name))
    _, said = parent.communicate(timeout=60)
    assert (parent.returncode, said.strip()) == (130, "Interrupted.")
    assert gone(child)
    assert names_in(tmp_path) == []


@posix
def test_llama_cpp_does_not_outlive_a_killed_parent(running):
    parent, child = running
    parent.kill()
    parent.wait()
    assert gone(child)


def test_a_progress_callback_may_stop_it(tiny_gguf, tmp_path):
    def stop(step: str, done: int, total: int) -> None:
        raise OSError(errno.EIO, "the callback's own")

    with pytest.raises(OutputError, match="the callback's own"):
        quantize(tiny_gguf("f16"), tmp_path / "out.gguf", "q4_k_m", progress=stop)
    assert names_in(tmp_path) == []
    commands = [" ".join(process.cmdline()) for process in psutil.Process().children()]
    assert not [command for command in commands if "q3e_local.llama.quantize" in command]


def test_the_quantizer_ends_with_its_stdin():
    arguments = [sys.executable, "-m", "q3e_local.llama.quantize", "/no", "/no", "15", "1"]
    assert subprocess.run(arguments, stdin=subprocess.DEVNULL, capture_output=True).returncode == 1
