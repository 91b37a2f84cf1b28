"""What `checks.bench` measures: texts of exact lengths, sizes, modes and counts. No test looks at a time."""

from __future__ import annotations

import itertools

import pytest
from command import demo
from fake import FakeEngine

from q3e_local.checks import bench
from q3e_local.embedding.embedder import Embedder
from q3e_local.errors import ModelFileError
from q3e_local.llama.kernels.choice import Kernels, Taken
from q3e_local.models.catalog import models_folder

DEMO = models_folder() / "demo.gguf"
CELLS = [(size, mode) for size in ("short", "medium", "long") for mode in ("single", "batched")]


def texts(seed: int = 0) -> bench.Texts:
    return bench.Texts(DEMO, demo().engine.tokenize, seed)


@pytest.mark.parametrize("n_tokens", [1, 2, 3, 16, 127, 128, 2048])
@pytest.mark.parametrize("spaced", [False, True])
def test_texts_have_exactly_so_many_tokens(n_tokens: int, spaced: bool) -> None:
    made = texts()(5, n_tokens, spaced=spaced)
    assert [len(demo().engine.tokenize(text)) + 1 for text in made] == [n_tokens] * 5
    assert all(text.startswith(" ") or text == "." for text in made if spaced and text)


def test_texts_are_the_same_in_every_run_and_differ_within_one() -> None:
    make = texts()
    made = make(50, 16) + make(50, 16)
    assert len(set(made)) == 100
    assert made == texts()(100, 16)
    assert made != texts(seed=1)(100, 16)


def test_a_model_without_words_is_refused() -> None:
    with pytest.raises(ModelFileError, match="no vocabulary"):
        bench.Texts(DEMO, lambda text: [1, 2, 3])


def measured(budget_s: float, call_s: float) -> list[bench.Cell]:
    """The cells on a clock that each look at moves by half of `call_s`."""
    looks = itertools.count()
    return list(bench.measure(demo(), texts(), budget_s, clock=lambda: next(looks) * call_s / 2))


def test_each_size_is_measured_alone_and_in_a_batch() -> None:
    cells = measured(budget_s=60, call_s=1)
    assert [(cell.size, cell.mode) for cell in cells] == CELLS
    for cell in cells:
        assert cell.n_tokens == cell.n_texts * cell.tokens_per_text
        assert cell.n_texts % cell.texts_per_call == 0
        assert (cell.texts_per_call == 1) == (cell.mode == "single")
        assert (cell.latency_ms is None) == (cell.mode == "batched")
        assert cell.tokens_per_s == pytest.approx(cell.n_tokens / cell.seconds)
        assert cell.texts_per_s == pytest.approx(cell.n_texts / cell.seconds)
        assert cell.peak_bytes > 1e6
    assert [cell.tokens_per_text for cell in cells[:4]] == [16, 16, 128, 128]


def test_without_time_every_cell_is_one_small_call() -> None:
    cells = measured(budget_s=0, call_s=1)
    assert [(cell.n_texts, cell.tokens_per_text) for cell in cells] == [
        (1, 16), (2, 16), (1, 128), (2, 128), (1, 64), (2, 64),
    ]  # fmt: skip


class Counting(FakeEngine):
    """The fake, with 10 products and an attention of ours in each batch."""

    kernels = Kernels(None, "Q3E_KERNELS=off", faster=("unset Q3E_KERNELS",))
    peak_bytes = 2_000_000

    @property
    def kernels_taken(self) -> Taken:
        return Taken(10 * self.n_decodes, self.n_decodes)


def test_each_cell_counts_what_our_kernels_computed() -> None:
    engine = Counting(n_ctx_max=4096)
    cells = list(bench.measure(Embedder(engine, "fake"), lambda n, length: ["a" * (length - 1)] * n, 0))
    assert all(cell.kernels == Taken(10 * n, n) for cell in cells if (n := cell.kernels.attentions))
    # The call that makes buffers is in no cell.
    assert sum(cell.kernels.attentions for cell in cells) == engine.n_decodes - 1
