"""Checkpoints that are broken, or of another kind: each is refused with its fault, and nothing is left."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import checkpoints
import numpy as np
import pytest
import tiny
from checkpoints import change_json, names_in, set_templates, write_json
from checkpoints import change_tokenizer as tokens
from hypothesis import given
from hypothesis import strategies as st

from q3e_local.convert import convert, shards
from q3e_local.convert.shards import read_file
from q3e_local.convert.vocabulary import read_vocabulary
from q3e_local.errors import ConversionError

NORM = "norm.weight"

Q_PROJ = "layers.0.self_attn.q_proj.weight"


def shape(folder: Path, **changes: Any) -> None:
    change_json(folder / "config.json", **changes)


def reshard(folder: Path, change: Callable[[dict[str, str]], None]) -> None:
    path = folder / shards.INDEX
    index = json.loads(path.read_text())
    change(index["weight_map"])
    write_json(path, index)


def header(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change the header of the only shard, and its length with it."""
    path = folder / shards.SINGLE
    raw = path.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    entries = json.loads(raw[8 : 8 + length])
    change(entries)
    new = json.dumps(entries).encode()
    path.write_bytes(len(new).to_bytes(8, "little") + new + raw[8 + length :])


def cut(path: Path, n_bytes: int) -> None:
    with path.open("rb+") as file:
        file.truncate(path.stat().st_size + n_bytes)


def chat(folder: Path) -> None:
    """Take away all by which an embedding model's folder differs from a chat model's, but for its name."""
    (folder / "modules.json").unlink()
    set_templates(folder, single=None)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: (f / "config.json").unlink(), "has no config.json; download the whole repository"),
        (lambda f: (f / "config.json").write_text("{"), "config.json is not JSON"),
        (lambda f: (f / "config.json").write_text("[]"), "config.json is not a JSON object"),
        (lambda f: (f / "config.json").write_bytes(b"\xff"), "config.json is not JSON"),
        (lambda f: (f / "config.json").write_text("[" * 100_000), "config.json is not JSON"),
        (lambda f: shape(f, architectures=["BertModel"]), "is a BertModel checkpoint; only Qwen3ForCausalLM or"),
        (lambda f: shape(f, architectures=..., model_type="qwen2"), "is a qwen2 checkpoint"),
        (lambda f: shape(f, architectures=["Qwen3VLForConditionalGeneration"]), "is a Qwen3VLForConditionalGen"),
        (lambda f: (f / "README.md").write_text("# Qwen3-Reranker-4B"), "has no token 'yes', with which"),
        (lambda f: shape(f, quantization_config={}), "is quantized already; take the original checkpoint"),
        (lambda f: shape(f, rope_scaling={"rope_type": "yarn", "factor": 4}), "has scaled positions"),
        (lambda f: shape(f, use_sliding_window=True), "uses a sliding window"),
        (lambda f: shape(f, is_causal=False), "does not use causal attention"),
        (lambda f: shape(f, hidden_act="gelu"), "uses 'gelu', not 'silu'"),
        (lambda f: shape(f, head_dim=...), "config.json says head_dim = None"),
        (lambda f: shape(f, hidden_size="256"), "config.json says hidden_size = '256'"),
        (lambda f: shape(f, rms_norm_eps=True), "config.json says rms_norm_eps = True"),
        (lambda f: shape(f, num_hidden_layers=2), "has the tensor layers.2."),
        (lambda f: shape(f, num_hidden_layers=10**9), "lacks the tensor layers.3."),
        (lambda f: shape(f, hidden_size=128), r"of shape \[1021, 256\], not \[1021, 128\] as config.json says"),
        (lambda f: (f / shards.SINGLE).unlink(), "has no model.safetensors; download the whole repository"),
        (lambda f: cut(f / shards.SINGLE, -1), r"model.safetensors is truncated: [\d,]+ bytes of [\d,]+"),
        (lambda f: cut(f / shards.SINGLE, 5), "has 5 bytes too many"),
        (lambda f: (f / shards.SINGLE).write_bytes(b"abc"), "is truncated at 3 bytes"),
        (lambda f: (f / shards.SINGLE).write_bytes(b"\xff" * 100), "a header of 18,446,744,073,709,551,615 bytes"),
        (lambda f: (f / shards.SINGLE).write_bytes(b"version https://git-lfs.github.com"), "is a Git LFS pointer"),
        (lambda f: (f / "tokenizer.json").write_bytes(b"version https://git-lfs.github.com"), "is a Git LFS pointer"),
        (lambda f: header(f, lambda h: h.pop(NORM)), "has [0-9,]+ bytes too many|has a gap"),
        (lambda f: header(f, lambda h: h[NORM].update(dtype="F8_E4M3")), "'norm.weight' in F8_E4M3; BF16, F16, F32"),
        (lambda f: header(f, lambda h: h[NORM].update(shape=[255])), r"512 bytes for 'norm.weight', BF16 of"),
        (lambda f: header(f, lambda h: h[NORM].update(shape=[-1])), "has a broken entry for 'norm.weight'"),
        (lambda f: header(f, lambda h: h[Q_PROJ].update(shape=[128, 512])), r"shape \[128, 512\], not \[256, 256\]"),
        (lambda f: header(f, lambda h: h.update(bias=h.pop(NORM))), "the tensor bias, which no Qwen3-Embedding has"),
        (lambda f: (f / "tokenizer.json").unlink(), "has no tokenizer.json; download the whole repository"),
        (lambda f: tokens(f, lambda t: t["model"].update(type="Unigram")), "is a 'Unigram' tokenizer"),
        (lambda f: tokens(f, lambda t: t["model"].update(merges=[])), "has no merges"),
        (lambda f: tokens(f, lambda t: t["model"]["merges"].append(["a"])), r"has a broken merge \['a'\]"),
        (lambda f: tokens(f, lambda t: t["model"]["vocab"].update(x=2000)), "'x' at id 2000, the model 1021 rows"),
        (lambda f: tokens(f, lambda t: t["model"]["vocab"].update(xyz=5)), "and 'xyz' at id 5|'xyz' and .* at id 5"),
        (lambda f: tokens(f, lambda t: t["model"]["vocab"].update({"\ud800": None})), "has a broken token"),
        (lambda f: tokens(f, lambda t: t["model"].update(vocab={"\ud800": 5})), "has a token that is no valid"),
        (lambda f: tokens(f, lambda t: t.update(added_tokens=None)), r"has no added token <\|endoftext\|>"),
        (lambda f: set_templates(f, single=["A", tiny.CHAT_END]), r"puts '<\|im_end\|>' around a text"),
        (lambda f: set_templates(f, single=[tiny.END, "A"]), r"puts '<\|endoftext\|>' around a text"),
        (lambda f: write_json(f / "1_Pooling/config.json", {"pooling_mode_mean_tokens": True}),
         "pools by 'mean', not the last token"),
        (lambda f: (f / "1_Pooling/config.json").unlink(), "1_Pooling has no config.json"),
        (lambda f: (f / "modules.json").write_text("{}"), "modules.json is not a list of modules"),
        (lambda f: write_json(f / "modules.json", [*checkpoints.MODULES, {"type": "x.Dense"}]),
         "has a Dense module, which a GGUF cannot hold"),
        (lambda f: (f / "README.md").write_text("---\nlicense: [\n---\n"), "the front matter of .* cannot be used"),
        (lambda f: (f / "README.md").write_text("---\nlicense: 5\n---\n"), "cannot be (used|written)"),
    ],
)  # fmt: skip
def test_a_broken_or_foreign_checkpoint_is_refused(checkpoint, tmp_path, spoil, message):
    folder = checkpoint()
    spoil(folder)
    with pytest.raises(ConversionError, match=message):
        convert(folder, tmp_path / "out.gguf", "bf16")
    assert names_in(tmp_path) == [checkpoints.NAME]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: (f / "model-00002-of-00003.safetensors").unlink(), "lacks model-00002-of-00003.safetensors,"),
        (lambda f: (f / shards.INDEX).unlink() or (f / "model-00003-of-00003.safetensors").unlink(),
         "lacks model-00003-of-00003.safetensors; download"),
        (lambda f: (f / shards.INDEX).write_text("{}"), "has no weight_map"),
        (lambda f: reshard(f, lambda m: m.update(ghost="model-00001-of-00003.safetensors")), "ghost .* is in none"),
        (lambda f: reshard(f, lambda m: m.pop(NORM)), "has norm.weight, which model.safetensors.index.json does not"),
        (lambda f: reshard(f, lambda m: m.update({NORM: "model-00001-of-00003.safetensors"})),
         "norm.weight is in model-00001-of-00003.safetensors, it is in model-00003-of-00003.safetensors"),
        (lambda f: reshard(f, lambda m: m.update({NORM: "../x.safetensors"})), "which is no file beside it"),
        (lambda f: cut(f / "model-00002-of-00003.safetensors", -10), "00002-of-00003.safetensors is truncated"),
    ],
)  # fmt: skip
def test_shards_that_do_not_agree_are_refused(checkpoint, tmp_path, spoil, message):
    folder = checkpoint(n_shards=3)
    spoil(folder)
    with pytest.raises(ConversionError, match=message):
        convert(folder, tmp_path / "out.gguf", "bf16")
    assert names_in(tmp_path) == [checkpoints.NAME]


def test_a_chat_model_is_refused(checkpoint, tmp_path):
    folder = checkpoint(name="Qwen3-0.6B")
    chat(folder)
    with pytest.raises(ConversionError, match="is a chat model"):
        convert(folder, tmp_path / "out.gguf", "bf16")


def test_an_early_embedding_checkpoint_is_known_by_its_name(checkpoint, tmp_path):
    folder = checkpoint()
    chat(folder)
    assert convert(folder, tmp_path / "out.gguf", "bf16").eos_id == 1014


@pytest.mark.parametrize(
    ("bad", "quantization", "message"),
    [
        (np.nan, "bf16", "has NaN or infinity in layers.1.mlp.up_proj.weight"),
        (np.inf, "q8_0", "has NaN or infinity in layers.1.mlp.up_proj.weight"),
        (1e5, "f16", r"has a weight of 99840, above what f16 can hold; take bf16 or f32"),
    ],
)
def test_numbers_that_would_become_nan_are_refused(checkpoint, tmp_path, weights, bad, quantization, message):
    spoilt = weights["layers.1.mlp.up_proj.weight"].copy()
    spoilt[3, 4] = bad
    folder = checkpoint(weights | {"layers.1.mlp.up_proj.weight": spoilt})
    with pytest.raises(ConversionError, match=message):
        convert(folder, tmp_path / "out.gguf", quantization)
    assert names_in(tmp_path) == [checkpoints.NAME]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("nowhere", "there is no folder"),
        ("model.gguf", "is a file, not a checkpoint's folder; quantize it with"),
        ("model.safetensors", "is a file, not a checkpoint's folder; name its folder"),
    ],
)
def test_a_source_that_is_no_folder_is_refused(tmp_path, source, message):
    (tmp_path / "model.gguf").touch()
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(ConversionError, match=message):
        convert(tmp_path / source, tmp_path / "out.gguf")


# Any damage at all


def sound_file(path: Path) -> bytes:
    parts = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.ones(4, np.float32)}
    checkpoints.write_safetensors(path, parts, "F32")
    return path.read_bytes()


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("shards") / "model.safetensors"


def read(path: Path, raw: bytes) -> None:
    """Read a file, and its tensors: either they lie in the file, or it is a ConversionError."""
    path.write_bytes(raw)
    try:
        found = read_file(path)
    except ConversionError:
        return
    for tensor in found:
        if tensor.shape and all(tensor.shape):
            assert sum(piece.size for piece in tensor.rows(5)) == np.prod(tensor.shape)


@given(data=st.data())
def test_a_torn_or_changed_file_is_an_error_or_sound(file, data):
    raw = bytearray(sound_file(file))
    for _ in range(data.draw(st.integers(0, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    read(file, bytes(raw[: data.draw(st.integers(0, len(raw)))]))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(
    entry=JSON
    | st.fixed_dictionaries({"dtype": st.sampled_from(["F32", "BF16", 3]), "shape": JSON, "data_offsets": JSON})
)
def test_any_json_for_a_tensor_is_an_error_or_sound(file, entry):
    raw = json.dumps({"a": entry}).encode()
    read(file, len(raw).to_bytes(8, "little") + raw + bytes(24))


@given(value=JSON, place=st.sampled_from(["model", "added_tokens", "post_processor", "pre_tokenizer", "normalizer"]))
def test_any_json_in_a_tokenizer_is_an_error_or_fine(tmp_path_factory, tokenizer, value, place):
    folder = tmp_path_factory.mktemp("tokenizer")
    write_json(folder / "tokenizer_config.json", checkpoints.tokenizer_config(tokenizer))
    settings = json.loads(tokenizer.to_str()) | {place: value}
    (folder / "tokenizer.json").write_text(json.dumps(settings), encoding="utf-8")
    with suppress(ConversionError):
        read_vocabulary(folder, {}, tiny.N_VOCAB)
