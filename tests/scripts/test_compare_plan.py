"""The plan of the comparison: the same texts, of exact token counts, in turn, for whoever fits into memory."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from command import demo
from comparing import BENCH, DEMO

pytestmark = pytest.mark.usefixtures("parts")


def test_every_workload_has_texts_of_exactly_its_tokens(parts):
    make = parts.workloads.Maker(demo(), DEMO)
    for workload in parts.workloads.WORKLOADS.values():
        given = make.given(workload, 3)
        assert [len(ids) for ids in given.ids] == [workload.n_tokens] * 3
        assert all(ids[-1] == demo().engine.eos_id for ids in given.ids)
        assert given.n_tokens == 3 * workload.n_tokens
        assert len(set(given.texts)) == 3


def test_queries_are_an_instruction_of_21_tokens_and_11_more(parts):
    tokenize = demo().engine.tokenize
    given = parts.workloads.Maker(demo(), DEMO).given(parts.workloads.WORKLOADS["queries"], 2)
    prefix = f"Instruct: {given.instruction}\nQuery:"
    assert len(tokenize(prefix)) == 21
    assert [text.removeprefix(prefix) for text in given.prompted] == given.texts
    # Whoever puts the instruction there itself sees the same.
    result = demo().embed_query(given.texts[0], instruction=given.instruction)
    assert result.prompt_tokens == (32,)
    np.testing.assert_allclose(result.vectors, demo().embed_documents(given.prompted[:1]).vectors, atol=1e-5)


def test_no_two_rounds_share_texts_and_every_run_has_the_same(parts):
    workload = parts.workloads.WORKLOADS["16"]
    one, two = (parts.workloads.Maker(demo(), DEMO, seed).given(workload, 20).texts for seed in (1, 2))
    assert not set(one) & set(two)
    assert one == parts.workloads.Maker(demo(), DEMO, 1).given(workload, 20).texts


def test_whoever_goes_first_goes_last_in_the_next_round(parts):
    turns = [parts.workloads.turn("abc", number) for number in range(4)]
    assert ["".join(one) for one in turns] == ["abc", "bca", "cab", "abc"]
    assert parts.workloads.turn([], 3) == []


def test_large_models_have_fewer_texts_but_clients_never_fewer_than_two_each(parts):
    loads = parts.workloads.WORKLOADS
    assert (loads["128"].n_texts(1), loads["128"].n_texts(0.5), loads["128"].n_texts(0.001)) == (32, 16, 1)
    assert loads["queries"].n_texts(0.05) == 64
    assert loads["clients-64"].n_texts(0.05) == 128


ROUNDS = [{"run": 0, "us": {}, "a": {}, "b": {}}, {"run": 0, "us": {}, "a": {}}]


@pytest.mark.parametrize(
    ("rounds", "wanted", "expected"),
    [
        ([], 2, ["us", "a", "b"]),
        (ROUNDS, 1, []),
        (ROUNDS, 2, ["us", "b"]),  # the base again: a ratio is of one round
        (ROUNDS, 3, ["us", "a", "b"]),
        ([{"run": 0, "a": {}}], 1, ["us", "a", "b"]),  # without the base it is no round
    ],
)
def test_only_what_is_missing_is_measured(parts, rounds, wanted, expected):
    assert parts.workloads.missing(rounds, "us", ["us", "a", "b"], wanted) == expected


def test_without_a_base_that_lives_the_others_are_measured_all_the_same(parts):
    missing = parts.workloads.missing
    assert missing([{"run": 0, "a": {}}], "us", ["a", "b"], 1) == ["b"]
    assert missing(ROUNDS, "us", ["a", "b"], 2) == ["b"]


def test_the_best_flags_are_found_kind_by_kind(parts):
    def speed(choice: Any) -> float:
        return 1 + (choice.compute == ("-fa", "on")) + (choice.n_parallel == 8) * 2 + choice.n_batch / 1e6

    winner, tries = parts.server_flags.search("batch", speed)
    assert winner.flags(128) == ["-fa", "on", "-b", "2048", "-ub", "2048", "-np", "8", "-kvu", "-c", "2048"]
    assert len(tries) == 1 + sum(len(kind) for kind in parts.server_flags.KINDS["batch"])
    assert tries[0]["flags"][:3] == ["--no-repack", "-fa", "on"]
    assert max(one["texts_per_s"] for one in tries) == speed(winner)


def test_flags_that_do_not_start_do_not_win(parts):
    winner, _ = parts.server_flags.search("long", lambda choice: 0.0)
    assert winner == parts.server_flags.Choice()


@pytest.mark.parametrize("n_tokens", [16, 512, 2048, 8192])
def test_a_text_fits_the_physical_batch_and_the_context(parts, n_tokens):
    command = parts.server_flags.defaults(Path("llama-server"), DEMO, n_tokens)
    assert ("-ub" in command) == (n_tokens > 512)
    for choice in (parts.server_flags.Choice(), parts.server_flags.Choice(n_parallel=16, unified=False)):
        flags = choice.flags(n_tokens)
        n_ubatch = int(flags[flags.index("-ub") + 1]) if "-ub" in flags else 512
        n_ctx = int(flags[flags.index("-c") + 1])
        assert n_ubatch >= n_tokens
        assert n_ctx // (choice.n_parallel or 1) >= n_tokens


@pytest.mark.parametrize(
    ("name", "n_ctx", "gigabytes"),
    [
        ("llama-server", 32_768, 5.2),
        ("llama-embed", 0, 1.4),
        ("library", 0, 1.4),
        ("torch-bf16", 0, 2.3),
        ("openvino-int8-f32", 0, 2.9),
    ],
)
def test_what_a_contender_needs_is_near_what_was_measured(parts, name, n_ctx, gigabytes):
    """0.6B in Q4_K_M, 128-token texts: llama-server took 5.2 GB, Llama.embed 1.4 GB."""
    info = SimpleNamespace(size_bytes=396_469_984, n_vocab=151_669, n_embd=1024, kv_bytes_per_token=114_688)
    model = SimpleNamespace(info=info, shape={"n_head": 16})
    assert parts.models.needed(name, model, 128, n_ctx) / 1e9 == pytest.approx(gigabytes, rel=0.05)


def test_scores_of_long_texts_count_where_attention_is_no_operation(parts):
    info = SimpleNamespace(size_bytes=0, n_vocab=0, n_embd=0)
    model = SimpleNamespace(info=info, shape={"n_head": 16})
    scores = 16 * 8192 * 8192 * 4
    assert parts.models.needed("onnxruntime-int8", model, 8192, 0) == 3 * scores + 10**9
    assert parts.models.needed("openvino-int8-f32", model, 8192, 0) == 10**9


def test_who_does_not_fit_is_left_out_before_it_starts(tmp_path, monkeypatch):
    monkeypatch.setattr("q3e_local.machine.available_memory", lambda: 10**8)
    main = runpy.run_path(str(BENCH / "compare.py"))
    comparison = main["Comparison"](tmp_path / "c.json", tmp_path, None, sys.executable, 1, True, ())
    stopped: list[str] = []
    waiting = SimpleNamespace(stop=lambda: stopped.append("library"))
    model, workload = main["Model"].of(f"{DEMO}=demo"), main["WORKLOADS"]["16"]
    with pytest.raises(main["NotHereError"], match=r"it may need 0.2 GB, 0.1 GB are free"):
        comparison.make_room("llama-embed", model, workload, {"library": waiting})
    assert stopped == ["library"]


def test_whoever_reads_fewer_tokens_or_gives_no_vectors_fails(parts):
    checked = runpy.run_path(str(BENCH / "compare.py"))["checked"]
    given = parts.workloads.Given(["a"], [[1, 2, 3]], None)

    def measured(n_tokens: int, vectors: Any) -> Any:
        return parts.contenders.Measured(1.0, 1, n_tokens, np.asarray(vectors))

    good = measured(3, [[1.0, 0.0]])
    assert checked(good, given, 2) is good
    for bad, why in (
        (measured(2, [[1.0, 0.0]]), "read 2 tokens where there are 3"),
        (measured(3, [[1.0]]), r"the shape \(1, 1\), not \(1, 2\)"),
        (measured(3, [[1.0, np.nan]]), "not finite"),
    ):
        with pytest.raises(RuntimeError, match=why):
            checked(bad, given, 2)


def test_a_product_that_this_cpu_lacks_instructions_for_does_not_hold_up_the_others(parts, monkeypatch):
    """PyTorch's bfloat16 product took over ten minutes on a CPU with AVX2 alone, fifteen times over."""
    clock = [0.0]
    monkeypatch.setattr(parts.peak.time, "perf_counter", lambda: clock[0])

    def product(seconds_a_row):
        def compute(n_rows):
            clock[0] += seconds_a_row * n_rows

        return compute

    def refused(n_rows):
        raise RuntimeError("not in this build")

    products = {"bf16": product(1.0), "int8": refused, "f32": product(0.001)}
    assert parts.peak.fastest(products, 512, 3) == {"f32": pytest.approx(0.512)}
    assert clock[0] < 2 * 8 + 5
