"""Write the demo model: a small GGUF of the Qwen3-Embedding architecture with constructed weights.

    python scripts/convert/make_demo.py -o models/demo.gguf

Nothing is trained, so that every command can be tried without a download. The vector of a text is a weighted
bag of its tokens, and this is why:

- The embedding of a token is +w or -w in 255 numbers and `rest` in the last. The signs are the SHA-256 of the
  token's folded form ("Invoices" -> "invoice"). So two forms of a word point the same way, and two words at
  about a right angle, at every cut: the first d signs are as random as all. w says how much the token tells.
- `rest` brings every embedding to root mean square 1: the RMS norm leaves it, and with it w, as it is.
- Queries and keys are zero. So all attention scores are equal, and the end token, which sees every token,
  gets their mean.
- Values pass the 255 numbers and drop `rest`. The output projection makes the mean large beside the end
  token's own embedding, which is small but not zero: an empty text has a vector too.
- The feed-forward adds zero, and the final norm drops `rest` again: the last number of a full vector is 0.

The vocabulary is byte-level BPE: the words of demo_words.txt, most of them capitalized as well, and the 3,755
characters of GB2312 level 1, one token each. A space is its own token, so a word is the same token anywhere.

Only hashes, integers and element-wise float32 are used: the same inputs give the same bytes on every machine.
models/demo.toml has the size and the SHA-256 of these bytes.
"""

import hashlib
import re
from itertools import pairwise
from pathlib import Path

import click
import gguf
import numpy as np

N_EMBD = N_FF = 256  # one K-quant block, so that the model can be quantized like a real one
N_HEAD, HEAD_DIM = 4, 64
END, CHAT_TOKENS = "<|endoftext|>", ["<|im_start|>", "<|im_end|>"]

# The weight of a word, by its section in demo_words.txt.
SECTIONS = {"function": 0.05, "common": 0.5, "topic": 1.0}
FRAGMENT, DIGIT, LETTER, MARK, SPACE = 0.25, 0.2, 0.1, 0.02, 0.002  # half of all tokens are spaces
FUNCTION_CHARACTERS = (
    "的了是在我有和就不人也这那一二三四五六七八九十百千个上下中大小来去到说要会可以没们他她它你您都还又很"
    "只最更被把给让向从对与或而但如果因为所之其些此每各等着过得地呢吗吧啊什么怎样哪谁几多少何时候后前里外"
    "再已将才刚正出起开好先用做想知道请比较否共约年月日号第项次点找于及并且则若该自己同"
)
COMMON_CHARACTERS = (
    "新成主事报定必关动原议由机天现部合本作方法面生工行进理加经问题使实情应员手心意全体业务管组完式度当"
    "入内回见话信间常变任名力数表平通处备步交决参复保需重无物件受接收放化制单据发能看"
)
CHARACTERS = dict.fromkeys(COMMON_CHARACTERS, SECTIONS["common"])
CHARACTERS |= dict.fromkeys(FUNCTION_CHARACTERS, SECTIONS["function"])
PUNCTUATION = "，。、；：？！“”‘’（）《》【】「」—…·％￥～–•€£°×"
# Endings are tried in this order: "cares" is care and not car, "hoped" is hope and not hop.
ENDINGS = [
    ("ies", "y"), ("ied", "y"), ("s", ""), ("es", ""), ("ing", "e"), ("ing", ""), ("ed", "e"), ("ed", ""),
]  # fmt: skip


def byte_alphabet() -> dict[int, str]:
    """The printable character that stands for each byte in a byte-level vocabulary, in GPT-2's order."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in printable]
    return {b: chr(b) for b in printable} | {b: chr(256 + i) for i, b in enumerate(others)}


ALPHABET = byte_alphabet()
BYTES = {character: byte for byte, character in ALPHABET.items()}


def spell(text: str) -> list[str]:
    return [ALPHABET[byte] for byte in text.encode()]


def text_of(token: str) -> str | None:
    """The text a token stands for, or None where it is only a part of a character."""
    try:
        return bytes(BYTES[character] for character in token).decode()
    except UnicodeDecodeError:
        return None


def chinese_characters() -> list[str]:
    """GB2312 level 1: rows 16 to 55 of the standard; the last row has five empty cells."""
    cells = [bytes((row, cell)) for row in range(0xB0, 0xD8) for cell in range(0xA1, 0xFF)]
    return [cell.decode("gb2312") for cell in cells if cell < b"\xd7\xfa"]


def read_words(path: Path) -> dict[str, float]:
    """The words of the list, each with the weight of its section."""
    words, weight = {}, 0.0
    for line in path.read_text(encoding="utf-8").split("\n"):
        if line.startswith("["):
            weight = SECTIONS[line.strip("[]")]
        elif line and not line.startswith("#"):
            words[line] = weight
    return words


def fold(word: str, words: dict[str, float]) -> str:
    """Lower case, without -s, -ed or -ing where what remains is a word of the list that carries meaning."""
    word = word.lower()
    if words.get(word) == SECTIONS["function"]:
        return word
    for ending, replacement in ENDINGS:
        if word.endswith(ending):
            stem = word.removesuffix(ending)
            undoubled = [stem[:-1]] if ending in ("ing", "ed") and stem[-1:] == stem[-2:-1] else []
            for base in [stem + replacement, *undoubled]:
                if len(base) > 2 and words.get(base, 0.0) > SECTIONS["function"]:
                    return base
    return word


class Merges:
    """BPE merges in the order of their rank."""

    def __init__(self) -> None:
        self.ranks: dict[tuple[str, str], int] = {}

    def encode(self, pieces: list[str]) -> list[str]:
        """Join neighbours, lowest rank first, as every BPE tokenizer does."""
        while pairs := [pair for pair in pairwise(pieces) if pair in self.ranks]:
            i = list(pairwise(pieces)).index(min(pairs, key=self.ranks.__getitem__))
            pieces = [*pieces[:i], pieces[i] + pieces[i + 1], *pieces[i + 2 :]]
        return pieces

    def learn(self, text: str, from_end: bool) -> None:
        """Add merges until the text is one token.

        Earlier texts stay one token: a new merge has the highest rank, so it waits until all others are done.
        """
        while len(pieces := self.encode(spell(text))) > 1:
            left, right = pieces[-2:] if from_end else pieces[:2]
            self.ranks[left, right] = len(self.ranks)


def build_merges(words: dict[str, float]) -> Merges:
    """Learn characters from the first byte on, words from the end: "Budget" adds one merge to "budget"."""
    merges = Merges()
    for character in [*chinese_characters(), *PUNCTUATION]:
        merges.learn(character, from_end=False)
    by_length = sorted(words, key=lambda word: (len(word), word))
    capitalized = [w[0].upper() + w[1:] for w in by_length if len(w) <= 6 or words[w] != SECTIONS["common"]]
    for word in [*by_length, *capitalized]:
        merges.learn(word, from_end=True)
    return merges


def weigh(token: str, words: dict[str, float]) -> tuple[str, float]:
    """The folded form of a token and its weight: how much it tells about a text."""
    text = text_of(token)
    if text is None:
        return token, FRAGMENT
    if text.isdigit():
        return text, DIGIT
    if re.fullmatch(r"[\u4e00-\u9fff]", text):
        return text, CHARACTERS.get(text, SECTIONS["topic"])
    if not text.isalpha():
        return text, SPACE if text.isspace() else MARK
    folded = fold(text, words)
    return folded, words.get(folded, FRAGMENT if len(text) > 1 else LETTER)


def embed(folded: str, weight: float) -> np.ndarray:
    """+weight or -weight by the bits of a hash, and what is left to root mean square 1 in the last number."""
    bits = np.unpackbits(np.frombuffer(hashlib.sha256(folded.encode()).digest(), np.uint8))
    row = np.where(bits == 1, np.float32(weight), np.float32(-weight))
    row[-1] = np.sqrt(np.float32(N_EMBD - (N_EMBD - 1) * weight**2))
    return row


def diagonal(value: float) -> np.ndarray:
    """Pass all numbers but the last, times `value`. Q8_0 holds 127 times a power of two exactly."""
    return np.diag(np.array([value] * (N_EMBD - 1) + [0.0], np.float32))


def tensors(embeddings: np.ndarray) -> dict[str, np.ndarray]:
    """All tensors of the model, in the order of a converted checkpoint."""
    ones = np.ones(N_EMBD, np.float32)
    zero = np.zeros((N_EMBD, N_EMBD), np.float32)
    head_norm = np.ones(HEAD_DIM, np.float32)
    return {
        "token_embd.weight": embeddings,
        "blk.0.attn_norm.weight": ones,
        "blk.0.ffn_down.weight": zero,
        "blk.0.ffn_gate.weight": zero,
        "blk.0.ffn_up.weight": zero,
        "blk.0.ffn_norm.weight": ones,
        "blk.0.attn_k_norm.weight": head_norm,
        "blk.0.attn_k.weight": zero,
        "blk.0.attn_output.weight": diagonal(127 / 2),
        "blk.0.attn_q_norm.weight": head_norm,
        "blk.0.attn_q.weight": zero,
        "blk.0.attn_v.weight": diagonal(127 / 128),
        "output_norm.weight": np.append(ones[1:], np.float32(0)),
    }


def add_metadata(writer: gguf.GGUFWriter, tokens: list[str], merges: Merges) -> None:
    """The keys of a converted Qwen3-Embedding, in its order."""
    writer.add_type(gguf.GGUFType.MODEL)
    writer.add_name("q3e-local demo")
    writer.add_description(
        "For trying commands out only. The weights are constructed, not trained: "
        "similarity is weighted overlap of tokens, and nothing else."
    )
    writer.add_license("apache-2.0")
    writer.add_tags(["feature-extraction"])
    writer.add_languages(["en", "zh"])
    writer.add_block_count(1)
    writer.add_context_length(32768)
    writer.add_embedding_length(N_EMBD)
    writer.add_feed_forward_length(N_FF)
    writer.add_head_count(N_HEAD)
    writer.add_head_count_kv(N_HEAD)
    writer.add_rope_freq_base(1_000_000.0)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_key_length(HEAD_DIM)
    writer.add_value_length(HEAD_DIM)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)
    writer.add_pooling_type(gguf.PoolingType.LAST)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    specials = [END, *CHAT_TOKENS]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(tokens)
    writer.add_token_types(
        [gguf.TokenType.CONTROL if token in specials else gguf.TokenType.NORMAL for token in tokens]
    )
    writer.add_token_merges([f"{left} {right}" for left, right in merges.ranks])
    end = tokens.index(END)
    writer.add_eos_token_id(end)
    writer.add_pad_token_id(end)
    writer.add_eot_token_id(tokens.index("<|im_end|>"))
    writer.add_bos_token_id(end)
    writer.add_add_eos_token(True)
    writer.add_add_bos_token(False)


def write_model(path: Path, words: dict[str, float]) -> int:
    """Build the model, write it beside `path` and rename it; answer the number of tokens."""
    merges = build_merges(words)
    # Two merges can give the same token; it is listed once.
    vocabulary = dict.fromkeys([*ALPHABET.values(), *(left + right for left, right in merges.ranks)])
    specials = [END, *CHAT_TOKENS]
    tokens = [*vocabulary, *specials]
    weighed = [weigh(token, words) for token in vocabulary] + [(token, SPACE) for token in specials]
    partial = path.with_name(path.name + ".partial")
    writer = gguf.GGUFWriter(partial, "qwen3")
    add_metadata(writer, tokens, merges)
    for name, tensor in tensors(np.stack([embed(*pair) for pair in weighed])).items():
        if tensor.ndim == 1:
            writer.add_tensor(name, tensor)
        else:
            q8_0 = gguf.GGMLQuantizationType.Q8_0
            writer.add_tensor(name, gguf.quants.quantize(tensor, q8_0), raw_dtype=q8_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    partial.replace(path)
    return len(tokens)


@click.command()
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="File to write.")
@click.option("--force", is_flag=True, help="Write over an existing file.")
def main(output: Path, force: bool) -> None:
    """Write the demo model."""
    if output.exists() and not force:
        raise click.ClickException(f"{output} exists; pass --force to write over it")
    n_tokens = write_model(output, read_words(Path(__file__).with_name("demo_words.txt")))
    click.echo(f"{output}: {output.stat().st_size:,} bytes, {n_tokens:,} tokens", err=True)


if __name__ == "__main__":
    main()
