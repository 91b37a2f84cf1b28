"""`q3e-local bench` measures what it says: sizes, modes and counts. No test looks at a time."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator

import pytest
from command import demo, run
from fake import FakeEngine

from q3e_local import machine
from q3e_local.checks import bench
from q3e_local.embedding.embedder import Embedder
from q3e_local.errors import ModelFileError
from q3e_local.llama.kernels import in_use as kernels
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


def test_json_says_what_was_measured_on_what() -> None:
    result = run("bench", "-m", "demo", "--seconds", 0, "--json", "--threads", 1)
    assert (result.exit_code, result.stderr) == (0, "")
    found = json.loads(result.stdout)
    assert list(found) == ["machine", "versions", "model", "settings", "kernels", "seconds", "complete", "cells"]
    assert found["kernels"] == kernels.chosen().fields()
    assert set(found["cells"][0]["kernels"]) == {"products", "attentions"}
    assert found["complete"] is True
    assert [(cell["size"], cell["mode"]) for cell in found["cells"]] == CELLS
    assert list(found["cells"][0]["latency_ms"]) == ["p50", "p90", "p99"]
    assert found["machine"]["cpu"] == machine.cpu_name()
    assert found["versions"]["llama-cpp-python"] == "0.3.36"
    assert found["settings"]["n_threads"] == 1
    assert found["model"]["name"] == "demo"


class Counting(FakeEngine):
    """The fake, with 10 products and an attention of ours in each batch."""

    kernels = Kernels(None, "Q3E_KERNELS=off", faster=("unset Q3E_KERNELS",))

    @property
    def kernels_taken(self) -> Taken:
        return Taken(10 * self.n_decodes, self.n_decodes)


def test_each_cell_counts_what_our_kernels_computed() -> None:
    engine = Counting(n_ctx_max=4096)
    cells = list(bench.measure(Embedder(engine, "fake"), lambda n, length: ["a" * (length - 1)] * n, 0))
    assert all(cell.kernels == Taken(10 * n, n) for cell in cells if (n := cell.kernels.attentions))
    # The call that makes buffers is in no cell.
    assert sum(cell.kernels.attentions for cell in cells) == engine.n_decodes - 1


def test_people_get_a_table() -> None:
    result = run("bench", "-m", "demo", "--seconds", 0)
    assert (result.exit_code, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert lines[0] == "demo (q8_0, 3.6 MB)"
    assert lines[1].startswith(machine.cpu_name())
    assert "llama-cpp-python 0.3.36" in lines[1]
    assert lines[2] == kernels.chosen().explained
    attentions = re.search(
        r"^our kernels computed [\d,]+ matrix products and ([\d,]+) attentions of it$", result.stdout, re.M
    )[1]
    assert (int(attentions.replace(",", "")) > 0) == (kernels.chosen().variant is not None)
    rows = [line.split("│")[1].split() for line in lines if line.startswith("│")]
    assert rows == [[size] for size, _ in CELLS]


def test_ctrl_c_gives_what_was_measured_so_far(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = bench.measure

    def interrupted(*arguments: object) -> Iterator[bench.Cell]:
        yield from itertools.islice(whole(*arguments), 2)
        raise KeyboardInterrupt

    monkeypatch.setattr(bench, "measure", interrupted)
    result = run("bench", "-m", "demo", "--seconds", 0, "--json")
    found = json.loads(result.stdout)
    assert (result.exit_code, found["complete"], len(found["cells"])) == (130, False, 2)
    assert "Interrupted." in result.stderr
