"""Make the demo's reranker from the demo model: its words' vectors, in a transformer that focusing.py constructs.

    python scripts/convert/demo/reranker.py -m models/demo.gguf -o models/demo-reranker.gguf

Nothing is trained. It has the prompt and the layout of Qwen3-Reranker, and no weights of Qwen. Two things make it
smaller than the demo model: vectors are turned to their principal components, of which the first N_MEANING are kept
in Q4_0, and the words that the vocabulary learned last fall into pieces.
"""

from pathlib import Path
from typing import NamedTuple

import click
import focusing
import gguf
import numpy as np
from vocabulary import Vocabulary, spell

from q3e_local.convert.reranker import TEMPLATE, YES_NO

N_WORDS = 32_000  # tokens that are kept of the demo model's vocabulary
# The question's mark and the document's, which are no words of either: one token each.
PROMPT_MARKS = {"<Query": focusing.QUESTION, "<Document": focusing.DOCUMENT}
TURN_MARKS = {"<|im_start|>": focusing.START, "<|im_end|>": focusing.END}
END_OF_TEXT = "<|endoftext|>"
DESCRIPTION = "Constructed from the demo model's vectors, no weights of Qwen; for trying out, not for quality."
# The logit is SLOPE * (score - EVEN), where score is the squared length of the sum: 0 to 4, and 2 for a cosine of 0.
# EVEN lies between a right and a wrong answer to the question by which the program proves a reranker.
SLOPE, EVEN = 5.0, 2.27
Q4_0, Q8_0, F32 = gguf.GGMLQuantizationType.Q4_0, gguf.GGMLQuantizationType.Q8_0, gguf.GGMLQuantizationType.F32


class Demo(NamedTuple):
    """What is taken from the demo model. `vectors` (n_tokens, n) belong to the vocabulary's tokens."""

    vocabulary: Vocabulary
    vectors: np.ndarray


def read(path: Path) -> Demo:
    """The demo model's vocabulary without special tokens, and its vectors turned to their principal components."""
    reader = gguf.GGUFReader(path)
    keys = {name: field.contents() for name, field in reader.fields.items() if name.startswith("tokenizer.ggml.")}
    normal = [kind == gguf.TokenType.NORMAL for kind in keys["tokenizer.ggml.token_type"]]
    tokens = keys["tokenizer.ggml.tokens"][: sum(normal)]
    merges = [(left, right) for left, right in (merge.split(" ") for merge in keys["tokenizer.ggml.merges"])]
    table = next(tensor for tensor in reader.tensors if tensor.name == "token_embd.weight")
    rows = gguf.quants.dequantize(table.data, table.tensor_type)[: len(tokens)]
    meaning = rows[:, : rows.shape[1] - 32]  # the rest fills rows up to one length (shape.py)
    _, axes = np.linalg.eigh(meaning.T.astype(np.float64) @ meaning)
    return Demo(Vocabulary(tokens, merges), (meaning @ axes[:, ::-1]).astype(np.float32))


def cut(demo: Demo) -> Demo:
    """The first N_WORDS tokens, what the marks' words are made of, and a token for each mark behind them."""
    made_by = {left + right: (left, right) for left, right in reversed(demo.vocabulary.merges)}
    kept = set(demo.vocabulary.tokens[:N_WORDS])
    wanted = [spell(mark.removeprefix("<")) for mark in PROMPT_MARKS]
    while wanted:
        token = wanted.pop()
        if token not in kept:
            kept.add(token)
            wanted += made_by[token]
    places = [place for place, token in enumerate(demo.vocabulary.tokens) if token in kept]
    merges = [(left, right) for left, right in demo.vocabulary.merges if {left, right, left + right} <= kept]
    tokens = [*(demo.vocabulary.tokens[place] for place in places), *map(spell, PROMPT_MARKS)]
    merges += [(spell("<"), spell(mark.removeprefix("<"))) for mark in PROMPT_MARKS]
    return Demo(Vocabulary(tokens, merges), demo.vectors[places])


def table(demo: Demo) -> np.ndarray:
    """The token table (n_tokens, N_EMBD): words, marks of the prompt, end of text, marks of turns."""
    words = focusing.word_rows(demo.vectors[:, : focusing.N_MEANING])
    end_of_text = np.zeros((1, focusing.N_EMBD), np.float32)
    marks = [np.stack([focusing.mark_row(note) for note in notes.values()]) for notes in (PROMPT_MARKS, TURN_MARKS)]
    return np.concatenate([words, marks[0], end_of_text, marks[1]])


def head() -> np.ndarray:
    """The rows of yes and no (2, N_EMBD)."""
    rows = np.zeros((2, focusing.N_EMBD), np.float32)
    # The norm leaves NOTE * (1, score) a common factor: about ROOM / sqrt(N_EMBD).
    to_score = focusing.ROOM / focusing.N_EMBD**0.5 / focusing.NOTE
    rows[0, focusing.SCORE] = SLOPE * to_score
    rows[0, focusing.ONE[0]] = -SLOPE * EVEN * to_score
    return rows


def add_metadata(writer: gguf.GGUFWriter, vocabulary: Vocabulary) -> None:
    """The keys of a converted Qwen3-Reranker, in its order."""
    writer.add_type(gguf.GGUFType.MODEL)
    writer.add_name("q3e-local demo reranker")
    writer.add_description(DESCRIPTION)
    writer.add_license("apache-2.0")
    writer.add_languages(["en", "zh"])
    writer.add_block_count(focusing.N_LAYER)
    writer.add_context_length(8192)
    writer.add_embedding_length(focusing.N_EMBD)
    writer.add_feed_forward_length(focusing.N_FF)
    writer.add_head_count(focusing.N_HEAD)
    writer.add_head_count_kv(focusing.N_HEAD_KV)
    writer.add_rope_freq_base(focusing.ROPE_BASE)
    writer.add_layer_norm_rms_eps(focusing.EPSILON)
    writer.add_key_length(focusing.HEAD_DIM)
    writer.add_value_length(focusing.HEAD_DIM)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q4_0)
    writer.add_pooling_type(gguf.PoolingType.RANK)
    writer.add_classifier_output_labels(YES_NO)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    specials = [END_OF_TEXT, *TURN_MARKS]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list([*vocabulary.tokens, *specials])
    kinds = [gguf.TokenType.NORMAL] * len(vocabulary.tokens) + [gguf.TokenType.CONTROL] * len(specials)
    writer.add_token_types(kinds)
    writer.add_token_merges([f"{left} {right}" for left, right in vocabulary.merges])
    end = len(vocabulary.tokens)
    writer.add_eos_token_id(end + specials.index("<|im_end|>"))
    writer.add_pad_token_id(end)
    writer.add_add_bos_token(False)
    writer.add_chat_template([{"name": "rerank", "template": TEMPLATE}])


def write(path: Path, demo: Demo) -> None:
    """Write the model beside `path` and rename it. Keys in Q8_0: some are differences, which Q4_0 leaves no zeros."""
    partial = path.with_name(path.name + ".partial")
    writer = gguf.GGUFWriter(partial, "qwen3")
    add_metadata(writer, demo.vocabulary)
    for name, tensor in {"token_embd": table(demo), **focusing.parameters()}.items():
        kind = F32 if tensor.ndim == 1 else Q8_0 if name.endswith("attn_k") else Q4_0
        writer.add_tensor(f"{name}.weight", gguf.quants.quantize(tensor, kind), raw_dtype=kind)
    writer.add_tensor("cls.output.weight", head())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    partial.replace(path)


@click.command()
@click.option("-m", "--model", type=click.Path(path_type=Path, exists=True), required=True, help="The demo model.")
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="File to write.")
@click.option("--force", is_flag=True, help="Write over an existing file.")
def main(model: Path, output: Path, force: bool) -> None:
    """Make the demo's reranker. Takes seconds."""
    if output.exists() and not force:
        raise click.ClickException(f"{output} exists; pass --force to write over it")
    demo = cut(read(model))
    write(output, demo)
    click.echo(f"{output}: {output.stat().st_size:,} bytes, {len(demo.vocabulary.tokens):,} tokens")


if __name__ == "__main__":
    main()
