"""A reranker that is constructed, not trained: four layers of Qwen3 that read a document for what a question means.

Each token brings the vector that it has in the demo model. The last token computes the score:

1. Each token finds the marks of the prompt before it, and so knows whether the question or the document has begun.
2. The turns' marks take the mean of the question's words.
3. The end of the user's turn takes the mean of the document's words, in which a word weighs the more the nearer it is
   to the mean of the question.
4. The last token adds both means, each of length 1. The nearer they are to each other, the longer is their sum: its
   squared length, 2 + 2 cos, is the score.

A hidden state has N_MEANING numbers of meaning and, in a block of its own, notes: quantized in blocks of 32, neither
is rounded by the other's size.
"""

from collections.abc import Iterable, Mapping

import numpy as np

N_MEANING, N_EMBD, N_FF = 96, 128, 192
N_LAYER, N_HEAD, N_HEAD_KV, HEAD_DIM = 4, 3, 1, 128
EPSILON = 1e-6
# So large that positions do not turn what heads compare: the pairs from FIRST_PAIR on turn by 0.02 in 8,192 tokens.
ROPE_BASE = 1e30
FIRST_PAIR = 12

# Places of the notes in a hidden state. ONE is for all tokens, after layer 1: so large that a norm keeps the lengths
# of words, which are their weights. ASKED and READ are for tokens behind the marks of question and document.
ONE = tuple(range(96, 112))
WORD, START, END, QUESTION, DOCUMENT, ASKED, READ, SCORE = range(112, 120)
MARKS = (START, END, QUESTION, DOCUMENT)
NOTE = 16.0  # how large ONE, ASKED and READ are
MARK = 4 * NOTE  # how large marks are, in their rows
ROOM = NOTE * len(ONE) ** 0.5  # the length of ONE, and about that of a hidden state

FOCUS = 4.0  # how much more a word weighs that means what the question means, as the logarithm of the ratio
BLUR = 0.7  # words of a length below it count as less near; most words are longer, as their lengths are weights
LONG, SHORT = 2048.0, 2.0  # times the mean: what a norm makes unit length, and what it leaves next to nothing
CHOICE = 40.0  # the logit of a token that a head looks for, against 0 for others

N_STARTS, N_ENDS = 3, 2  # in the whole prompt
MEANING = range(N_MEANING)
FREE = (*range(FIRST_PAIR, HEAD_DIM // 2), *range(HEAD_DIM // 2 + FIRST_PAIR, HEAD_DIM))
KEYS, NOTES = FREE[:N_MEANING], FREE[N_MEANING:]  # where queries and keys have meanings, and where notes


def word_rows(vectors: np.ndarray) -> np.ndarray:
    """Rows of the token table (n_tokens, N_EMBD) for words with these vectors (n_tokens, N_MEANING)."""
    rows = np.zeros((len(vectors), N_EMBD), np.float32)
    rows[:, :N_MEANING] = vectors
    rows[:, WORD] = 1
    return rows


def mark_row(note: int) -> np.ndarray:
    """The row of the token table (N_EMBD,) for a token that is a mark."""
    row = np.zeros(N_EMBD, np.float32)
    row[note] = MARK
    return row


class Layer:
    """A layer whose matrices begin as zeros. Its heads share keys and values."""

    def __init__(self) -> None:
        self.q = np.zeros((N_HEAD, HEAD_DIM, N_EMBD), np.float32)
        self.k, self.v = np.zeros((2, HEAD_DIM, N_EMBD), np.float32)
        self.out = np.zeros((N_HEAD, N_EMBD, HEAD_DIM), np.float32)
        self.gains = np.full(HEAD_DIM, CHOICE / HEAD_DIM**0.5, np.float32)
        self.gate, self.up = np.zeros((2, N_FF, N_EMBD), np.float32)
        self.down = np.zeros((N_EMBD, N_FF), np.float32)

    def note(self, matrix: np.ndarray, place: int, weights: Mapping[int, float]) -> None:
        """Let queries or keys have at one of NOTES a weighted sum of a hidden state's notes.

        Only the ratios of weights matter, because queries and keys are normed. They are chosen so that Q4_0, which
        keeps eighths of a block's largest weight, and Q8_0 for keys keep them.
        """
        for source, weight in weights.items():
            matrix[NOTES[place], source] = weight

    def take_meaning(self, head: int, gain: float) -> None:
        """Add the mean of the meanings that a head attends to, so many times."""
        self.v[MEANING, MEANING] = 1
        self.out[head, MEANING, MEANING] = gain

    def parameters(self) -> dict[str, np.ndarray]:
        ones = np.ones(N_EMBD, np.float32)
        return {
            "attn_norm": ones,
            "attn_q": self.q.reshape(-1, N_EMBD),
            "attn_k": self.k,
            "attn_v": self.v,
            "attn_q_norm": self.gains,
            "attn_k_norm": np.ones(HEAD_DIM, np.float32),
            "attn_output": np.concatenate(list(self.out), axis=1),
            "ffn_norm": ones,
            "ffn_gate": self.gate,
            "ffn_up": self.up,
            "ffn_down": self.down,
        }


def find_marks() -> Layer:
    """Layer 1: ONE for all tokens, as each sees the START before it; ASKED and READ behind the marks."""
    layer = Layer()
    found: tuple[tuple[int, Iterable[int]], ...] = ((START, ONE), (QUESTION, [ASKED]), (DOCUMENT, [READ]))
    for head, (mark, notes) in enumerate(found):
        layer.note(layer.q[head], head, dict.fromkeys((WORD, *MARKS), 1))
        layer.note(layer.k, head, {mark: 1})
        layer.v[head, mark] = 1
        layer.out[head, list(notes), head] = NOTE / N_EMBD**0.5  # a row with one number has it at this length
    layer.note(layer.k, len(found), {WORD: 1, END: 1})
    return layer


def take_question() -> Layer:
    """Layer 2: a START behind the question takes the question's mean, long, and an END short."""
    layer, (asked, nothing, other) = Layer(), range(3)
    for head, (mark, length) in enumerate(((START, LONG), (END, SHORT))):
        layer.note(layer.q[head], asked, {mark: 16})
        layer.note(layer.q[head], nothing, {mark: 8, ONE[0]: 1})
        layer.take_meaning(head, length * ROOM / N_EMBD**0.5)
    layer.note(layer.k, asked, {ASKED: 1, READ: -1})
    layer.note(layer.k, nothing, {START: NOTE / MARK})
    layer.note(layer.k, other, {ONE[0]: 1, ASKED: -1, READ: 1, START: -NOTE / MARK})  # 0 in the question, and START
    return layer


def focus() -> Layer:
    """Layer 3: the last END takes the document's mean, focused on the question that it has; others take nothing."""
    layer, (blur, nothing, other) = Layer(), range(3)
    layer.q[0, KEYS, MEANING] = 128
    layer.note(layer.q[0], nothing, {START: 16, END: -2, ONE[0]: 2})
    layer.note(layer.q[0], other, {END: -3})
    layer.k[KEYS, MEANING] = 1
    layer.note(layer.k, blur, dict.fromkeys(ONE, BLUR / ROOM / len(ONE) ** 0.5))
    layer.note(layer.k, nothing, {START: 64})
    # 0 in the document, and START. For END it is negative in queries, so that it looks at nothing else.
    layer.note(layer.k, other, {ONE[0]: 64, READ: -64, DOCUMENT: 16, START: -16, END: 16})
    layer.gains[list(KEYS)] = FOCUS / HEAD_DIM**0.5
    layer.gains[list(NOTES)] = 5 * CHOICE / HEAD_DIM**0.5
    layer.take_meaning(0, LONG * ROOM / N_EMBD**0.5)
    return layer


def add_up() -> Layer:
    """Layer 4: the sum of question and document, each of length `unit`, and its squared length.

    silu(x) x is about x² for x far above 0 and about 0 for x far below: a number has a unit for each sign.
    """
    unit, sharpness = 24.0, 64.0
    layer, (question, document, other) = Layer(), range(3)
    layer.note(layer.q[question], question, {ONE[0]: 1})
    layer.note(layer.q[document], document, {ONE[0]: 1})
    layer.note(layer.k, question, {START: 64})
    layer.note(layer.k, document, {END: 64})
    layer.note(layer.k, other, {ONE[0]: 64})
    layer.take_meaning(question, N_STARTS * unit / N_EMBD**0.5)
    layer.take_meaning(document, N_ENDS * unit / N_EMBD**0.5)
    for sign, units in ((1, MEANING), (-1, range(N_MEANING, N_FF))):
        layer.gate[units, MEANING] = sign * sharpness
        layer.up[units, MEANING] = sign
    layer.down[SCORE] = NOTE * ROOM**2 / (sharpness * N_EMBD * unit**2)
    return layer


def parameters() -> dict[str, np.ndarray]:
    """Every parameter but the token table and the head, by its name in the file, without `weight`."""
    layers = (find_marks(), take_question(), focus(), add_up())
    named = {f"blk.{i}.{name}": each for i, layer in enumerate(layers) for name, each in layer.parameters().items()}
    return {**named, "output_norm": np.ones(N_EMBD, np.float32)}
