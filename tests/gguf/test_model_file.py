"""Judging a model file: every wrong one is named with its fault, and no file, however broken, ends the process.

Files are the tiny model's, rewritten key by key or torn byte by byte; llama.cpp is the judge of what may load.
"""

from __future__ import annotations

import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import Config, Weights
from tokenizers import Tokenizer

from q3e_local.errors import ModelFileError, WrongModelError
from q3e_local.gguf import model_file
from q3e_local.gguf.header import TENSOR_TYPES, fingerprint, read_header
from q3e_local.gguf.model_file import ModelInfo, inspect

MakeGguf = Callable[..., Path]
SCALAR = {int: gguf.GGUFValueType.UINT32, float: gguf.GGUFValueType.FLOAT32, str: gguf.GGUFValueType.STRING}
SCALAR |= {bool: gguf.GGUFValueType.BOOL}


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
            item = gguf.GGUFValueType.INT32 if name.endswith("token_type") else SCALAR[type(value[0])]
            writer.add_key_value(name, value, gguf.GGUFValueType.ARRAY, item)
        elif value is not None:
            writer.add_key_value(name, value, SCALAR[type(value)])
    kept = {tensor.name: tensor.data for tensor in reader.tensors} | tensors
    for name, data in kept.items():
        if data is not None:
            writer.add_tensor(name, data)
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


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_gguf(tmp_path_factory.mktemp("small"))


# A sound file


@pytest.mark.parametrize("kind", ["f32", "f16", "q8_0", "q4_k_m"])
def test_a_sound_file_is_known_in_all_its_sizes(tiny_gguf: MakeGguf, tokenizer: Tokenizer, kind: str) -> None:
    path = tiny_gguf(kind)
    info = inspect(path)
    assert (info.path, info.name, info.size_bytes) == (path, "Tiny Qwen3 Embedding", path.stat().st_size)
    assert (info.n_embd, info.n_layer, info.n_head, info.n_head_kv, info.head_dim, info.n_ff) == (
        256,
        3,
        4,
        2,
        64,
        512,
    )
    assert (info.n_ctx_train, info.n_vocab) == (tiny.N_CTX, tiny.N_VOCAB)
    assert info.eos_id == tokenizer.token_to_id(tiny.END)
    assert info.added_tokens == (*tiny.SPECIAL, *tiny.NOT_SPECIAL)
    assert info.kv_bytes_per_token == 3 * 2 * 64 * 2 * 2  # layers, KV heads, their size, K and V, two bytes


@pytest.mark.parametrize("sizes", [(28, 8, 128, 114_688), (36, 8, 128, 147_456)])
def test_kv_memory_of_the_real_models(small: Path, sizes: tuple[int, int, int, int]) -> None:
    n_layer, n_head_kv, head_dim, n_bytes = sizes
    fields = vars(inspect(small)) | {"n_layer": n_layer, "n_head_kv": n_head_kv, "head_dim": head_dim}
    assert ModelInfo(**fields).kv_bytes_per_token == n_bytes


def test_tensors_lie_where_the_gguf_package_finds_them(tiny_gguf: MakeGguf) -> None:
    path = tiny_gguf("q4_k_m")
    theirs = {
        t.name: (tuple(t.shape.tolist()), t.tensor_type.name, t.data_offset, t.n_bytes)
        for t in gguf.GGUFReader(path).tensors
    }
    ours = {t.name: (t.shape, t.type_name, t.offset, t.size_bytes) for t in read_header(path).tensors.values()}
    assert ours == theirs


def test_block_sizes_are_those_of_the_gguf_package() -> None:
    sizes = {kind.value: (kind.name, *size) for kind, size in gguf.GGML_QUANT_SIZES.items()}
    assert {kind: sizes[kind] for kind in TENSOR_TYPES} == TENSOR_TYPES


@pytest.mark.parametrize("stated", [0, 1016])
def test_another_stated_end_token_is_warned_of_and_not_believed(
    tiny_gguf: MakeGguf, eos_id: int, caplog: pytest.LogCaptureFixture, stated: int
) -> None:
    assert inspect(tiny_gguf("f32", eos_id=stated, add_eos_token=False)).eos_id == eos_id
    assert f"names end token {stated}; using {eos_id} (<|endoftext|>)" in caplog.text


# Not a sound GGUF


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
def test_a_broken_file_is_named_with_its_fault(
    small: Path, tmp_path: Path, change: Callable[[bytes], bytes], says: str
) -> None:
    path = tmp_path / "broken.gguf"
    path.write_bytes(change(small.read_bytes()))
    with pytest.raises(ModelFileError, match=rf"broken\.gguf .*{says}"):
        inspect(path)


def test_no_file_and_a_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"^there is no file .*nothing\.gguf$"):
        inspect(tmp_path / "nothing.gguf")
    with pytest.raises(ModelFileError, match=r"is a directory; name the \.gguf file in it$"):
        inspect(tmp_path)


# A sound GGUF of another kind, or whose parts do not fit

N_TOKENS = 264
WORDS = [f"word{i}" for i in range(N_TOKENS)]


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({"qwen3.pooling_type": None}, "states no pooling: a chat model, or the work of an old converter"),
        ({"qwen3.pooling_type": 0}, "states 'none' pooling, not 'last'"),
        ({"qwen3.pooling_type": 1}, "states 'mean' pooling, not 'last'"),
        ({"qwen3.pooling_type": 9}, "states 9 pooling, not 'last'"),
        ({"qwen3.pooling_type": 4}, "is a reranker, not an embedding model"),
        ({"split.count": 3}, "is one of 3 parts; join them with `llama-gguf-split --merge` first"),
        ({"tokenizer.ggml.model": "llama"}, "has tokenizer 'llama'/'qwen2', not 'gpt2'/'qwen2'"),
        ({"tokenizer.ggml.pre": "default"}, "has tokenizer 'gpt2'/'default', not"),
        ({"tokenizer.ggml.tokens": WORDS}, r"has no token <\|endoftext\|> in its vocabulary"),
        ({"tokenizer.ggml.token_type": [1] * N_TOKENS}, r"does not mark <\|endoftext\|> as a control token"),
        ({"qwen3.attention.causal": False}, "states qwen3.attention.causal, which no Qwen3-Embedding does"),
        ({"qwen3.expert_count": 8}, "states qwen3.expert_count"),
        ({"qwen3.expert_used_count": [2]}, "states qwen3.expert_used_count"),
        ({"qwen3.nextn_predict_layers": 7}, "states qwen3.nextn_predict_layers"),
        ({"qwen3.embedding_length_out": 8}, "states qwen3.embedding_length_out"),
        ({"qwen3.rope.scaling.type": "sideways"}, "states qwen3.rope.scaling.type"),
        ({"qwen3.rope.scale_linear": 4.0}, "states qwen3.rope.scale_linear"),
    ],
)
def test_another_kind_of_model_is_refused_with_the_reason(
    small: Path, tmp_path: Path, keys: dict[str, Any], says: str
) -> None:
    with pytest.raises(WrongModelError, match=rf"other\.gguf {says}"):
        inspect(rewrite(small, tmp_path / "other.gguf", keys))


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({"tokenizer.ggml.tokens": None}, "has no vocabulary"),
        ({"tokenizer.ggml.tokens": [1, 2]}, "has no vocabulary"),
        ({"tokenizer.ggml.token_type": None}, "has 264 tokens, but 0 token types"),
        ({"tokenizer.ggml.token_type": [1] * 263}, "has 264 tokens, but 263 token types"),
        (
            {"tokenizer.ggml.tokens": [tiny.END, *WORDS[:262], "word3"]},
            "has 'word3' at id 263, empty or",
        ),
        ({"tokenizer.ggml.tokens": [tiny.END, "", *WORDS[:262]]}, "has '' at id 1, empty or a second time"),
        ({"tokenizer.ggml.tokens": [tiny.END, *WORDS[:262]]}, "has 263 tokens, but 264 token types"),
        ({"qwen3.embedding_length": None}, "states qwen3.embedding_length = None"),
        ({"qwen3.embedding_length": "many"}, "states qwen3.embedding_length = 'many'"),
        ({"qwen3.block_count": 0}, "states qwen3.block_count = 0"),
        ({"qwen3.block_count": 2**31}, "states qwen3.block_count = 2147483648"),
        ({"qwen3.block_count": 513}, "states 513 layers"),
        ({"qwen3.block_count": 2}, "lacks the tensor blk.1.attn_norm.weight"),
        ({"qwen3.attention.head_count": [1]}, "states qwen3.attention.head_count = None"),
        ({"qwen3.attention.head_count_kv": 3}, "states 1 heads on 3 KV heads"),
        ({"qwen3.attention.value_length": None}, "states no qwen3.attention.value_length"),
        ({"qwen3.attention.value_length": 16}, "states qwen3.attention.value_length = 16, not the key length 32"),
        ({"qwen3.rope.dimension_count": 16}, "states qwen3.rope.dimension_count = 16, not the key length 32"),
        ({"qwen3.attention.layer_norm_rms_epsilon": -1.0}, "states qwen3.attention.layer_norm_rms_epsilon = -1.0"),
        (
            {"qwen3.attention.layer_norm_rms_epsilon": float("nan")},
            "states qwen3.attention.layer_norm_rms_epsilon = nan",
        ),
        ({"qwen3.rope.freq_base": None}, "states qwen3.rope.freq_base = None"),
        ({"qwen3.rope.freq_base": 0.0}, "states qwen3.rope.freq_base = 0.0"),
        ({"qwen3.feed_forward_length": 64}, r"has blk\.0\.ffn_gate\.weight of shape \(32, 32\), not \(32, 64\)"),
        ({"general.alignment": 7}, "truncated or corrupt: general.alignment is 7"),
    ],
)
def test_parts_that_do_not_fit_together_are_named(
    small: Path, tmp_path: Path, keys: dict[str, Any], says: str
) -> None:
    with pytest.raises(ModelFileError, match=rf"unfit\.gguf.* {says}"):
        inspect(rewrite(small, tmp_path / "unfit.gguf", keys))


@pytest.mark.parametrize(
    ("tensors", "error", "says"),
    [
        ({"output_norm.weight": None}, ModelFileError, "lacks the tensor output_norm.weight"),
        ({"blk.0.attn_q.weight": None}, ModelFileError, "lacks the tensor blk.0.attn_q.weight"),
        ({"blk.0.attn_norm.weight": None}, ModelFileError, "lacks the tensor blk.0.attn_norm.weight"),
        ({"token_embd.weight": np.zeros((263, 32), "f4")}, ModelFileError, r"shape \(32, 263\), not \(32, 264\)"),
        ({"blk.0.attn_k.weight": np.zeros((64, 32), "f4")}, ModelFileError, r"shape \(32, 64\), not \(32, 32\)"),
        ({"output_norm.weight": np.zeros(32, "f2")}, ModelFileError, "has output_norm.weight in F16, not F32"),
        ({"cls.output.weight": np.zeros((2, 32), "f4")}, WrongModelError, "is a reranker"),
        ({"blk.0.attn_q.bias": np.zeros(32, "f4")}, WrongModelError, "has the tensor blk.0.attn_q.bias, which no"),
    ],
)
def test_wrong_tensors_are_named(
    small: Path, tmp_path: Path, tensors: dict[str, np.ndarray | None], error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=rf"tensors\.gguf .*{says}"):
        inspect(rewrite(small, tmp_path / "tensors.gguf", tensors=tensors))


def test_an_odd_key_length_is_refused(tmp_path: Path) -> None:
    config = Config(n_layer=1, n_embd=32, n_ff=32, n_head=1, n_head_kv=1, head_dim=31)
    weights = tiny.tiny_weights(config, n_vocab=264)
    path = tiny.write_gguf(tmp_path / "odd.gguf", weights, config, tiny.tiny_tokenizer(264))
    with pytest.raises(ModelFileError, match="states an odd key length, 31"):
        inspect(path)


@pytest.mark.parametrize("arch", ["llama", "qwen2", "bert"])
def test_another_architecture_is_refused(tiny_gguf: MakeGguf, arch: str) -> None:
    with pytest.raises(WrongModelError, match=rf"has architecture '{arch}'; only qwen3 .* runs here"):
        inspect(tiny_gguf("f32", arch=arch))


def test_an_untied_vocabulary_projection_is_no_fault(small: Path, tmp_path: Path) -> None:
    untied = rewrite(small, tmp_path / "untied.gguf", tensors={"output.weight": np.zeros((264, 32), "f4")})
    assert inspect(untied).n_vocab == 264


@pytest.mark.parametrize(("end_id", "is_right"), [(100, True), (99, False), (101, False)])
def test_a_vocabulary_of_the_real_size_has_the_end_token_in_its_place(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end_id: int, is_right: bool
) -> None:
    monkeypatch.setattr(model_file, "QWEN_END_ID", 100)  # 151,643 in files of full size
    words, types = WORDS[:-1], [1] * (N_TOKENS - 1)
    words.insert(end_id, tiny.END)
    types.insert(end_id, 3)
    path = rewrite(
        small, tmp_path / "large.gguf", {"tokenizer.ggml.tokens": words, "tokenizer.ggml.token_type": types}
    )
    if is_right:
        assert inspect(path).eos_id == 100
    else:
        with pytest.raises(WrongModelError, match=rf"has <\|endoftext\|> at id {end_id}, not 100"):
            inspect(path)


def test_the_end_token_of_the_real_vocabulary_is_151643() -> None:
    assert model_file.QWEN_END_ID == 151_643


# Fingerprints


def test_a_copy_has_the_same_fingerprint_under_any_name(tiny_gguf: MakeGguf, tmp_path: Path) -> None:
    copy = shutil.copyfile(tiny_gguf("f32"), tmp_path / "copy.gguf")
    assert inspect(copy).digest == inspect(tiny_gguf("f32")).digest


def test_any_other_weight_matrix_quantization_or_word_is_another_fingerprint(
    tiny_gguf: MakeGguf, tmp_path: Path, weights: Weights, config: Config, tokenizer: Tokenizer
) -> None:
    digests = [inspect(tiny_gguf(kind)).digest for kind in ("f32", "f16", "q8_0", "q4_k_m")]
    for name in ("embed_tokens.weight", "layers.1.mlp.down_proj.weight", "norm.weight"):
        other = weights | {name: weights[name] * np.float32(1.01)}
        path = tiny.write_gguf(tmp_path / "other.gguf", other, config, tokenizer)
        digests.append(fingerprint(read_header(path)))
    words = tiny_gguf("f32").read_bytes().replace(b"capital", b"capitol")
    (tmp_path / "words.gguf").write_bytes(words)
    digests.append(fingerprint(read_header(tmp_path / "words.gguf")))
    assert len(set(digests)) == len(digests)


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
def test_a_damaged_file_is_an_error_of_ours_or_a_model(
    small: Path, changes: list[tuple[int, int]], length: int | None
) -> None:
    path = small.with_name("damaged.gguf")
    path.write_bytes(damaged(small.read_bytes(), changes)[:length])
    try:
        outcome: object = inspect(path)
    except (ModelFileError, WrongModelError) as error:
        outcome = error
    assert str(path) in str(outcome)


def test_damage_is_done_to_the_header(small: Path) -> None:
    assert HEADER.stop in range(read_header(small).data_offset - 100, read_header(small).data_offset)


# What is odd in these, llama.cpp refuses or can live with.
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


def test_no_file_that_passes_for_a_model_ends_the_process(small: Path, tmp_path: Path) -> None:
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
def test_a_huge_broken_header_costs_little_memory(tmp_path: Path, kind: str) -> None:
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
