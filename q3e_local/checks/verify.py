"""Is a model right? Checks its header, tensor mix, checksum and vectors, compares its scores with the published ones,
and its neighbours with another model's.

Knows what a right model looks like; takes embedders and prints nothing. What is a reranker's own is in
verify_reranker.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from q3e_local.checks.report import Check, Report, Score
from q3e_local.embedding.embedder import Embedder
from q3e_local.embedding.request import EmbedRequest
from q3e_local.errors import BadVectorError
from q3e_local.files import sha256
from q3e_local.gguf.header import Header, read_header
from q3e_local.gguf.model_file import ModelInfo
from q3e_local.gguf.model_kind import OUTPUT
from q3e_local.models import installed
from q3e_local.models.card import ModelCard, ScoreTable
from q3e_local.models.catalog import card_name, cards
from q3e_local.models.installed import Located
from q3e_local.vectors import Vectors, finish, scores, top_k

# How far a score may be from the published one. Two runtimes of the full-precision model differ by 0.003 in the
# model's own README; how much quantization adds is not published, so these bounds are ours. A lost end token or a
# wrong pooling moves scores by more than 0.1.
TOLERANCES = {"f32": 0.005, "f16": 0.005, "bf16": 0.01, "q8_0": 0.01, "q6_k": 0.02, "q5_k_m": 0.03, "q4_k_m": 0.05}
LOOSEST = 0.06

CHECKSUM = "SHA-256"
# The least cosine of a text's vectors alone and in a batch. Rounding alone makes 0.9996 (random weights in Q4_K_M); a
# neighbour that leaks into a vector moves it by far more. No two of these texts are as near.
_SAME = 0.999
_TEXTS = (
    "The capital of China is Beijing.",
    "重力是一种力。",
    "Checkout failed at 09:42, and the payment service refused all connections for 38 minutes.",
)


@dataclass(frozen=True)
class Comparison:
    """Two models on the same texts at one dim: cosines of a text's two vectors, and their nearest neighbours.

    `cosines` is (n_texts,), empty when the models' spaces have different native sizes. `same_nearest` is the share
    of texts whose nearest neighbour stays the same, `overlap` the mean share of the `k` nearest that stay.
    """

    dim: int
    cosines: Vectors
    k: int
    same_nearest: float
    overlap: float


def examine(embedder: Embedder, located: Located, on_bytes: Callable[[int], None] = lambda n_bytes: None) -> Report:
    """Check all that can be checked of a model. Reads the whole file; calls `on_bytes` with the bytes read so far.

    Raises ModelError for a file that cannot be read.
    """
    info = located.inspect()
    card = located.card or card_of(info)
    checks = [
        *check_header(read_header(located.path), info, card),
        check_vectors(embedder),
        check_sum(located, on_bytes),
    ]
    table = None if card is None else card.scores
    scores = [] if table is None else check_scores(embedder, table, info.quantization)
    return Report(tuple(checks), tuple(scores), "" if card is None else card.name, is_named=located.card is not None)


def card_of(info: ModelInfo) -> ModelCard | None:
    """The card of this kind of model with the sizes of this file.

    A shipped card wins: a user's may be of a model trained further.
    """
    for card in reversed(cards().values()):
        sizes = card.sizes
        same_sizes = (sizes.n_layer, sizes.n_embd, sizes.n_vocab) == (info.n_layer, info.n_embd, info.n_vocab)
        if same_sizes and card.kind == info.kind:
            return card
    return None


def check_header(header: Header, info: ModelInfo, card: ModelCard | None) -> list[Check]:
    """Compare the header with the card. `inspect` refuses a wrong pooling or end token, so both are right here."""
    return [
        Check("pooling", True, "last token"),
        Check("end token", True, f"{info.eos_id} <|endoftext|>"),
        *check_sizes(header, info, card),
    ]


def check_sizes(header: Header, info: ModelInfo, card: ModelCard | None) -> list[Check]:
    """Compare the header's sizes and the types of its matrices with the card."""
    if card is None:
        return [Check("sizes", None, "no known model has these; nothing to hold them to")]
    checks = []
    for what, got, expected in (
        ("layers", info.n_layer, card.sizes.n_layer),
        ("dimension", info.n_embd, card.sizes.n_embd),
        ("vocabulary", info.n_vocab, card.sizes.n_vocab),
        ("context", info.n_ctx_train, card.sizes.n_ctx),
    ):
        checks.append(Check(what, got == expected, f"{got:,}" if got == expected else f"{got:,}, not {expected:,}"))
    checks.append(check_tensor_mix(header, info))
    return checks


def check_tensor_mix(header: Header, info: ModelInfo) -> Check:
    """Compare the type of every weight matrix with the recipe of the quantization that the file names."""
    expected = tensor_mix(info.quantization, info.n_layer, is_tied=OUTPUT not in header.tensors)
    what = f"tensor mix {info.quantization}"
    if expected is None:
        return Check(what, None, "no published recipe to hold it to")
    wrong = [
        f"{name} is {header.tensors[name].type_name}, not {type_name}"
        for name, type_name in expected.items()
        if header.tensors[name].type_name != type_name
    ]
    if wrong:
        return Check(what, False, f"{len(wrong)} of {len(expected)} differ: {wrong[0]}")
    return Check(what, True, f"{len(expected)} matrices as published")


def tensor_mix(quantization: str, n_layer: int, is_tied: bool = True) -> dict[str, str] | None:
    """The type of each weight matrix, or None for a quantization without a recipe here.

    llama.cpp's `llama_tensor_get_type`: the token table, where it is also the head, in Q6_K; attn_v and ffn_down in
    Q6_K in the first and last eighth of the layers and every third between.
    """
    if quantization in ("f32", "f16", "bf16", "q8_0", "q6_k"):
        low = high = quantization.upper()
    elif quantization in ("q4_k_m", "q5_k_m"):
        low, high = quantization[:4].upper(), "Q6_K"
    else:
        return None
    mix = {"token_embd.weight": high if is_tied else low}
    for layer in range(n_layer):
        eighth = n_layer // 8
        more_bits = layer < eighth or layer >= 7 * n_layer // 8 or (layer - eighth) % 3 == 2
        for name in ("attn_q", "attn_k", "attn_output", "ffn_gate", "ffn_up"):
            mix[f"blk.{layer}.{name}.weight"] = low
        for name in ("attn_v", "ffn_down"):
            mix[f"blk.{layer}.{name}.weight"] = high if more_bits else low
    return mix


def check_vectors(embedder: Embedder) -> Check:
    """Whether vectors are finite, differ between texts, and are the same for a text alone and in a batch."""
    what = "vectors"
    try:
        together = embedder.embed_documents(_TEXTS).vectors
        alone = np.concatenate([embedder.embed_documents([text]).vectors for text in _TEXTS])
    except BadVectorError as error:
        return Check(what, False, error.message)
    if not (np.isfinite(together).all() and np.isfinite(alone).all()):
        return Check(what, False, "some of their numbers are NaN or infinite")
    lowest = float(scores(together, alone).diagonal().min())
    if lowest < _SAME:
        return Check(what, False, f"alone and in a batch a text's vectors have a cosine of {lowest:.4f}")
    highest = float((scores(together, together) - 2 * np.eye(len(_TEXTS))).max())
    if highest > _SAME:
        return Check(what, False, f"two different texts have a cosine of {highest:.6f}")
    return Check(what, True, "finite, different for different texts, the same alone as in a batch")


def check_sum(located: Located, on_bytes: Callable[[int], None] = lambda n_bytes: None) -> Check:
    """Compare the file's SHA-256 with the card's, or with that of the time when it was made or imported."""
    digest = sha256(located.path, on_bytes)
    published = located.file.sha256 if located.file is not None else None
    if published:
        return Check(CHECKSUM, digest == published, digest if digest == published else f"{digest}, not {published}")
    recorded = installed.recorded_sha256(located)
    if recorded:
        same = digest == recorded
        return Check(CHECKSUM, same, f"{digest}, {'unchanged' if same else 'changed'} since it was made or imported")
    known_as = card_name(digest)
    if known_as is not None:
        return Check(CHECKSUM, True, f"{digest}, {known_as}")
    return Check(CHECKSUM, None, f"{digest}, nothing to hold it to")


def check_scores(embedder: Embedder, table: ScoreTable, quantization: str) -> list[Score]:
    """Embed the texts of the published example, and compare the scores."""
    queries = embedder.embed(EmbedRequest(table.queries, kind="query")).vectors
    documents = embedder.embed(EmbedRequest(table.documents, kind="document")).vectors
    got = scores(queries, documents)
    tolerance = TOLERANCES.get(quantization, LOOSEST)
    return [
        Score(query, document, table.expected[row][column], float(got[row, column]), tolerance)
        for row, query in enumerate(table.queries)
        for column, document in enumerate(table.documents)
    ]


def compare(one: Vectors, other: Vectors, dims: Sequence[int], k: int = 10) -> list[Comparison]:
    """Compare two models' full-size embeddings of at least two texts, (n, n_embd) each, at each of `dims`."""
    k = min(k, len(one) - 1)
    comparisons = []
    for dim in dims:
        left, right = finish(one, dim), finish(other, dim)
        nearest_left, nearest_right = (_neighbours(vectors, k) for vectors in (left, right))
        shared = [
            len(set(a) & set(b)) / k for a, b in zip(nearest_left.tolist(), nearest_right.tolist(), strict=True)
        ]
        same_size = one.shape[1] == other.shape[1]
        comparisons.append(
            Comparison(
                dim=dim,
                cosines=(left * right).sum(axis=1) if same_size else np.empty(0, np.float32),
                k=k,
                same_nearest=float((nearest_left[:, 0] == nearest_right[:, 0]).mean()),
                overlap=float(np.mean(shared)),
            )
        )
    return comparisons


def _neighbours(vectors: Vectors, k: int) -> np.ndarray[tuple[int, ...], np.dtype[np.intp]]:
    """The numbers of each text's `k` nearest others, (n, k)."""
    rows = []
    for start in range(0, len(vectors), 1024):
        block = scores(vectors[start : start + 1024], vectors)
        block[np.arange(len(block)), np.arange(start, start + len(block))] = -2  # no text is its own neighbour
        rows.append(top_k(block, k)[0])
    return np.concatenate(rows)
