"""Other runtimes in the comparison, with stand-ins for their packages, and the float32 reference."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import oracle
import pytest
from checkpoints import rounded
from comparing import compare, program, quick

pytestmark = pytest.mark.usefixtures("parts")


# The reference


@pytest.mark.parametrize("in_bf16", [False, True])
def test_the_reference_is_the_arithmetic_of_the_model(parts, tiny_gguf, weights, config, in_bf16):
    """Texts of more and fewer tokens than queries are computed at once, in float64 by other code."""
    ids = [[*range(3, 3 + n), 0] for n in (4, 700)]
    found = parts.reference.Reference(tiny_gguf("f32")).vectors(ids, in_bf16)
    given = rounded(weights, "BF16") if in_bf16 else weights
    expected = np.stack([oracle.embed(given, config, one) for one in ids])
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=2e-6)


def test_the_reference_of_quantized_weights_is_that_of_the_numbers_they_stand_for(parts, tiny_gguf):
    """llama.cpp, which rounds activations, comes near the reference; the vectors of the float32 file do not."""
    import q3e_local

    with q3e_local.load(tiny_gguf("q4_k_m")) as embedder:
        ids = [*embedder.engine.tokenize("The capital of China is Beijing."), embedder.engine.eos_id]
        ours = embedder.embed_documents(["The capital of China is Beijing."]).vectors[0]
    exact, other = (parts.reference.Reference(tiny_gguf(kind)).vectors([ids], False)[0] for kind in ("q4_k_m", "f32"))
    assert 1 - exact @ ours < 3e-3 < 1 - other @ ours


# Batches


def test_a_runtime_is_tried_with_as_many_texts_as_stay_in_a_cache(parts):
    candidates = parts.batches.candidates
    assert candidates(128, 16) == [4, 8, 16]
    assert candidates(128, 5) == [4, 5]
    assert candidates(2048, 1) == candidates(8192, 1) == [1]
    tried: list[int] = []
    best = parts.batches.best([4, 8, 16], lambda n: tried.append(n) or {4: 1.0, 8: 3.0, 16: 2.0}[n])
    assert (tried, best) == ([4, 8, 16], (8, {"4": 1.0, "8": 3.0, "16": 2.0}))
    assert parts.batches.best([1], lambda n: pytest.fail("there is nothing to choose")) == (1, {})


# Stand-ins

OPENVINO = """
import os
import numpy as np

__version__ = "stand-in"

class Type:
    def __init__(self, name):
        self.name = name
    def get_type_name(self):
        return self.name

class Compiled:
    def __init__(self, config):
        self.config = config
    def get_property(self, name):
        return Type(os.environ.get("COMPUTES_IN") or self.config[name])
    def __call__(self, inputs):
        ids = inputs["input_ids"]
        assert inputs["attention_mask"].shape == ids.shape and inputs["attention_mask"].all()
        hidden = np.full((*ids.shape, int(os.environ.get("WIDTH", "2"))), len(ids), np.float32)
        hidden[..., 1] = ids
        return {"last_hidden_state": hidden}

class Core:
    def compile_model(self, path, device, config):
        assert device == "CPU" and path.endswith("openvino_model.xml")
        return Compiled(config)
"""


def stand_in(folder: Path, **packages: str) -> dict[str, str]:
    """Write packages into a folder; returns the environment in which Python finds them."""
    for name, content in packages.items():
        (folder / f"{name}.py").write_text(content)
    return {"PYTHONPATH": str(folder)}


def openvino(parts: SimpleNamespace, folder: Path, hint: str, **variables: str) -> Any:
    options = {"folder": str(folder), "n_threads": 3, "hint": hint}
    variables |= stand_in(folder, openvino=OPENVINO)
    return parts.contenders.InChild("openvino", options, folder, variables=variables, takes_ids=True, n_batch=2)


def test_a_graph_gets_ids_in_batches_and_its_last_token_is_the_vector(parts, tmp_path):
    contender = openvino(parts, tmp_path, "f32")
    contender.start()
    try:
        assert contender.settings == {
            "openvino": "stand-in", "INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 3,
            "PERFORMANCE_HINT": "LATENCY", "texts a call": 2,
        }  # fmt: skip
        given = parts.workloads.Given(["a", "b", "c"], [[9, 2], [9, 0], [9, 1]], None)
        measured = contender.measure(given, parts.workloads.WORKLOADS["16"])
    finally:
        contender.stop()
    assert (measured.n_texts, measured.n_tokens) == (3, 6)
    half = np.sqrt(0.5)  # (2 texts at once, last id 2), (2, 0), (1, 1)
    np.testing.assert_allclose(measured.vectors, [[half, half], [1, 0], [half, half]], atol=1e-6)
    assert contender.memory.peak_rss > 1e6


def test_a_hint_that_openvino_does_not_take_is_no_result(parts, tmp_path):
    with pytest.raises(parts.kind.NotHereError, match=r"^OpenVINO computes in f32 on this CPU whatever the hint$"):
        openvino(parts, tmp_path, "bf16", COMPUTES_IN="f32").start()


@pytest.mark.parametrize("kind", ["torch", "openvino", "optimum", "onnxruntime", "fastembed", "qwen3_embed"])
def test_a_package_that_cannot_be_imported_is_named(parts, tmp_path, kind):
    broken = 'raise ImportError("libmissing.so: cannot open shared object file")'
    names = ("torch", "openvino", "onnxruntime", "fastembed", "qwen3_embed")
    options = {"folder": "", "n_threads": 1}
    options |= {"torch": {"dtype": "float32"}, "openvino": {"hint": "f32"}, "optimum": {"hint": "f32"}}.get(kind, {})
    if kind in ("fastembed", "qwen3_embed"):
        options["name"] = "0.6b"
    variables = stand_in(tmp_path, **dict.fromkeys(names, broken))
    contender = parts.contenders.InChild(kind, options, tmp_path, variables=variables)
    with pytest.raises(parts.kind.NotHereError, match=r"^not installed: libmissing\.so"):
        contender.start()


FASTEMBED = """
from types import SimpleNamespace
import numpy as np

class TextEmbedding:
    def __init__(self, name, threads, specific_model_path, local_files_only):
        assert (name, threads, local_files_only) == ("Some/Qwen3-Embedding-0.6B-Q", 2, True)
        encode = lambda texts: [SimpleNamespace(ids=[ord(text[-1]), 0]) for text in texts]
        self.model = SimpleNamespace(tokenizer=SimpleNamespace(encode_batch=encode))
    @staticmethod
    def list_supported_models():
        return [{"model": "Some/Other"}, {"model": "Some/Qwen3-Embedding-0.6B-Q"}]
    def embed(self, texts, batch_size):
        return (np.array([batch_size, 0]) for text in texts)
"""


def test_fastembed_has_the_same_ids_or_no_figure(parts, tmp_path):
    for name in ("fastembed", "onnxruntime"):
        info = tmp_path / f"{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    workload = parts.workloads.WORKLOADS["16"]

    def started(name: str) -> Any:
        options = {"name": name, "folder": str(tmp_path), "n_threads": 2}
        variables = stand_in(tmp_path, fastembed=FASTEMBED)
        contender = parts.contenders.InChild("fastembed", options, tmp_path, variables=variables, takes_ids=True)
        contender.n_batch = 5
        contender.start()
        return contender

    good = started("0.6b")
    measured = good.measure(parts.workloads.Given(["xA"], [[65, 0]], None), workload)
    good.stop()
    assert measured.vectors.tolist() == [[5, 0]]
    bad = started("0.6b")
    with pytest.raises(RuntimeError, match="its tokenizer gives other ids"):
        bad.measure(parts.workloads.Given(["xA"], [[66, 0]], None), workload)
    bad.stop()
    with pytest.raises(parts.kind.NotHereError, match="has no model qwen3-embedding-4b-q"):
        started("4b")


# The whole of it

OTHER_PYTHON = """
import os, sys
from pathlib import Path

script = Path(sys.argv[1]).name
if script == "child.py":
    os.environ |= {{"PYTHONPATH": {packages!r}, "WIDTH": "256"}}
    os.execv({python!r}, [{python!r}, *sys.argv[1:]])
form = "checkpoint" if script == "checkpoint.py" else sys.argv[2]
if form == {fails!r}:
    sys.exit({how!r})
folder = Path(sys.argv[-1])
folder.mkdir(parents=True)
(folder / "config.json").write_text("{{}}")
"""


def other_python(folder: Path, fails: str = "", how: str = "") -> Path:
    """A Python with stand-ins for packages, whose conversions only make folders."""
    stand_in(folder, openvino=OPENVINO)
    return program(folder, OTHER_PYTHON.format(packages=str(folder), python=sys.executable, fails=fails, how=how))


posix = pytest.mark.skipif(sys.platform == "win32", reason="a program of ours starts by its first line")


@posix
def test_a_peer_is_measured_held_to_float32_and_a_row(tmp_path):
    output = tmp_path / "c.json"
    python = other_python(tmp_path, "onnx", "ModuleNotFoundError: No module named 'torch'")
    names = ("openvino-int8-f32", "openvino-int4-bf16", "onnxruntime-int8", "library-ggml", "torch-f32")
    quick(output, "--other-python", python, contenders=names)
    cell = json.loads(output.read_text())["cells"]["demo/16"]
    measured = {"run", "library", "library-ggml", "openvino-int8-f32", "openvino-int4-bf16"}
    assert [set(each) for each in cell["rounds"]] == [measured]
    chosen = cell["settings"]["library-ggml"]["kernels"]
    assert (chosen["variant"], chosen["why"]) == (None, "Q3E_KERNELS=off")
    assert cell["exactness"]["library-ggml"]["min"] > 0.999
    assert cell["skipped"] == {
        "onnxruntime-int8": "no onnx: exit code 1: ModuleNotFoundError: No module named 'torch'",
        "torch-f32": "not installed: No module named 'torch'",
    }
    printed = compare("--output", output, "--table", "-")
    assert printed.exit_code == 0
    assert "|  | ONNX Runtime int8 | left out: no onnx: exit code 1: ModuleNotFoundError" in printed.stdout
    assert "|  | OpenVINO int8, f32 | " in printed.stdout
    assert printed.stdout.startswith("### demo\n")


@posix
def test_what_does_not_fit_is_not_even_converted(tmp_path, monkeypatch):
    output = tmp_path / "c.json"
    monkeypatch.setattr("q3e_local.machine.available_memory", lambda: 10**9)
    quick(output, "--other-python", other_python(tmp_path), contenders=["openvino-int8-f32"])
    cell = json.loads(output.read_text())["cells"]["demo/16"]
    assert "GB, 1.0 GB are free" in cell["skipped"]["openvino-int8-f32"]
    assert not list((tmp_path / "c.scratch").glob("*openvino*"))


def test_a_signal_is_explained_by_llama_cpp_only_where_it_ran(parts):
    crashed = parts.contenders.crashed
    assert crashed(-4) == "SIGILL"
    assert crashed(-4, is_llama=True).startswith("SIGILL (this build of llama.cpp")
    assert crashed(-9, "first\nlast words\n") == (
        "SIGKILL (the system ran out of memory, or someone ended it): last words"
    )
