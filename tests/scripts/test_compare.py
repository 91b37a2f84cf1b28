"""The comparison measures what it says: the same texts, of exact token counts, in turn. No test looks at a time."""

from __future__ import annotations

import importlib.util
import json
import runpy
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from command import demo
from comparing import BENCH, DEMO, compare, imported_parts, program


@pytest.fixture(scope="module", autouse=True)
def parts() -> Iterator[SimpleNamespace]:
    with imported_parts() as found:
        yield found


# Texts and turns


def test_every_workload_has_texts_of_exactly_its_tokens(parts: SimpleNamespace) -> None:
    make = parts.workloads.Maker(demo(), DEMO)
    for workload in parts.workloads.WORKLOADS.values():
        given = make.given(workload, 3)
        assert [len(ids) for ids in given.ids] == [workload.n_tokens] * 3
        assert all(ids[-1] == demo().engine.eos_id for ids in given.ids)
        assert given.n_tokens == 3 * workload.n_tokens
        assert len(set(given.texts)) == 3


def test_queries_are_an_instruction_of_21_tokens_and_11_of_their_own(parts: SimpleNamespace) -> None:
    tokenize = demo().engine.tokenize
    given = parts.workloads.Maker(demo(), DEMO).given(parts.workloads.WORKLOADS["queries"], 2)
    prefix = f"Instruct: {given.instruction}\nQuery:"
    assert len(tokenize(prefix)) == 21
    assert [text.removeprefix(prefix) for text in given.prompted] == given.texts
    # Whoever puts the instruction there itself sees the same.
    result = demo().embed_query(given.texts[0], instruction=given.instruction)
    assert result.prompt_tokens == (32,)
    np.testing.assert_allclose(result.vectors, demo().embed_documents(given.prompted[:1]).vectors, atol=1e-5)


def test_a_round_has_texts_of_its_own_and_the_same_in_every_run(parts: SimpleNamespace) -> None:
    workload = parts.workloads.WORKLOADS["16"]
    one, two = (parts.workloads.Maker(demo(), DEMO, seed).given(workload, 20).texts for seed in (1, 2))
    assert not set(one) & set(two)
    assert one == parts.workloads.Maker(demo(), DEMO, 1).given(workload, 20).texts


def test_whoever_goes_first_goes_last_in_the_next_round(parts: SimpleNamespace) -> None:
    turns = [parts.workloads.turn("abc", number) for number in range(4)]
    assert ["".join(one) for one in turns] == ["abc", "bca", "cab", "abc"]
    assert parts.workloads.turn([], 3) == []


def test_large_models_have_fewer_texts_and_clients_always_some(parts: SimpleNamespace) -> None:
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
def test_only_what_is_missing_is_measured(
    parts: SimpleNamespace, rounds: list[dict[str, Any]], wanted: int, expected: list[str]
) -> None:
    assert parts.workloads.missing(rounds, "us", ["us", "a", "b"], wanted) == expected


def test_without_a_base_that_lives_the_others_are_measured_all_the_same(parts: SimpleNamespace) -> None:
    missing = parts.workloads.missing
    assert missing([{"run": 0, "a": {}}], "us", ["a", "b"], 1) == ["b"]
    assert missing(ROUNDS, "us", ["a", "b"], 2) == ["b"]


# llama-server's flags


def test_the_best_flags_are_found_kind_by_kind(parts: SimpleNamespace) -> None:
    def speed(choice: Any) -> float:
        return 1 + (choice.compute == ("-fa", "on")) + (choice.n_parallel == 8) * 2 + choice.n_batch / 1e6

    winner, tries = parts.server_flags.search("batch", speed)
    assert winner.flags(128) == ["-fa", "on", "-b", "2048", "-ub", "2048", "-np", "8", "-kvu", "-c", "2048"]
    assert len(tries) == 1 + sum(len(kind) for kind in parts.server_flags.KINDS["batch"])
    assert tries[0]["flags"][:3] == ["--no-repack", "-fa", "on"]
    assert max(one["texts_per_s"] for one in tries) == speed(winner)


def test_flags_that_do_not_start_do_not_win(parts: SimpleNamespace) -> None:
    winner, _ = parts.server_flags.search("long", lambda choice: 0.0)
    assert winner == parts.server_flags.Choice()


@pytest.mark.parametrize("n_tokens", [16, 512, 2048, 8192])
def test_a_text_fits_the_physical_batch_and_the_context(parts: SimpleNamespace, n_tokens: int) -> None:
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
def test_what_a_contender_needs_is_near_what_was_measured(
    parts: SimpleNamespace, name: str, n_ctx: int, gigabytes: float
) -> None:
    """0.6B in Q4_K_M, 128-token texts: llama-server took 5.2 GB, Llama.embed 1.4 GB."""
    info = SimpleNamespace(size_bytes=396_469_984, n_vocab=151_669, n_embd=1024, kv_bytes_per_token=114_688)
    model = SimpleNamespace(info=info, shape={"n_head": 16})
    assert parts.models.needed(name, model, 128, n_ctx) / 1e9 == pytest.approx(gigabytes, rel=0.05)


def test_scores_of_long_texts_count_where_attention_is_no_operation(parts: SimpleNamespace) -> None:
    info = SimpleNamespace(size_bytes=0, n_vocab=0, n_embd=0)
    model = SimpleNamespace(info=info, shape={"n_head": 16})
    scores = 16 * 8192 * 8192 * 4
    assert parts.models.needed("onnxruntime-int8", model, 8192, 0) == 3 * scores + 10**9
    assert parts.models.needed("openvino-int8-f32", model, 8192, 0) == 10**9


def test_who_does_not_fit_is_left_out_before_it_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("q3e_local.machine.available_memory", lambda: 10**8)
    main = runpy.run_path(str(BENCH / "compare.py"))
    comparison = main["Comparison"](tmp_path / "c.json", tmp_path, None, sys.executable, 1, True, ())
    stopped: list[str] = []
    waiting = SimpleNamespace(stop=lambda: stopped.append("library"))
    model, workload = main["Model"].of(f"{DEMO}=demo"), main["WORKLOADS"]["16"]
    with pytest.raises(main["NotHereError"], match=r"it may need 0.0 GB, 0.1 GB are free"):
        comparison.make_room("llama-embed", model, workload, {"library": waiting})
    assert stopped == ["library"]


# Results


def figures(tokens_per_s: float) -> dict[str, Any]:
    return {
        "tokens_per_s": tokens_per_s,
        "texts_per_s": tokens_per_s / 128,
        "seconds": 1.0,
        "texts": 4,
        "tokens": 512,
    }


def measured(parts: SimpleNamespace) -> dict[str, Any]:
    """A comparison of two rounds whose ratios are 2 and 4, and of who was left out."""
    return {
        "runs": [
            {
                "began": "2026-01-01T00:00:00+00:00", "commit": "abc1234",
                "command": "python scripts/bench/compare.py",
                "machine": {"cpu": "Some CPU", "cores": 2, "memory_bytes": 8 * 10**9, "system": "Linux"},
                "versions": {"q3e-local": "0.1.0"},
            }
        ],
        "best": {"0.6b/batch": {"choice": {}, "tries": [{"flags": ["-fa", "on"], "texts_per_s": 2.0}]}},
        "peaks": [{"run": 0, "model": "0.6b", "operations_per_s": {"bf16": 8e11, "int8": 2e12}}],
        "cells": {
            "0.6b/128": {
                "model": "0.6b", "digest": "d", "base": "library", "texts": 4,
                "workload": vars(parts.workloads.WORKLOADS["128"]),
                "shape": {"n_layer": 28, "n_head": 16, "head_dim": 128, "n_weights": 440_401_920},
                "rounds": [
                    {"run": 0, "llama-server": figures(300), "library": figures(600)},
                    {"run": 0, "library": figures(800), "llama-server": figures(200)},
                ],
                "settings": {"library": {"n_batch": 512}, "llama-server": {"command": "llama-server -m x"}},
                "memory": {"library": {"peak_rss": 600_000_000, "pss": 1}},
                "cosine": {"library": {"min": 1}, "llama-server": {"min": 0.99991}},
                "exactness": {"library": {"min": 0.999999}, "llama-server": {"min": 0.9996}},
                "skipped": {"fastembed": "not installed: | is missing"},
            }
        },
    }  # fmt: skip


def test_a_ratio_is_taken_round_by_round(parts: SimpleNamespace) -> None:
    cell = measured(parts)["cells"]["0.6b/128"]
    assert parts.results.ratios(cell, "llama-server") == [2, 4]
    assert parts.results.contenders(cell) == ["library", "llama-server", "fastembed"]
    cell["rounds"].append({"run": 1, "library": figures(1)})
    assert parts.results.ratios(cell, "llama-server") == [2, 4]


def test_the_table_has_ratios_with_their_spread_memory_and_cosines(parts: SimpleNamespace) -> None:
    lines = parts.report.markdown(measured(parts)).splitlines()
    assert lines[0] == "### 0.6b"
    ours = (
        "| 4 texts of 128 tokens | **q3e-local, library** | 700 (600 to 800) | 5.47 (4.69 to 6.25) |  | 0.60 GB |  |"
    )
    assert f"{ours} 1.00000 |" in lines
    row = "|  | llama-server, defaults | 250 (200 to 300) | 1.95 (1.56 to 2.34) | 3.00 (2.00 to 4.00) |  | 0.99991 |"
    assert f"{row} 0.99960 |" in lines
    assert r"|  | fastembed | left out: not installed: \| is missing |  |  |  |  |  |" in lines
    # 2 operations for each weight, 2 for each of 128 tokens before and after in 28 layers of 16 heads of 128.
    cost = 2 * 440_401_920 + 2 * 28 * 16 * 128 * 128
    bound = next(line for line in lines if line.startswith("| 4 texts of 128 tokens | ") and "%" in line)
    assert (
        bound
        == f"| 4 texts of 128 tokens | {8e11 / cost:,.0f} | {2e12 / cost:,.0f} | 700 | {700 * cost / 2e12:.0%} |"
    )
    assert "- llama-server, defaults (128): `llama-server -m x`" in lines
    assert "- tried on llama-server for batch, texts/s: `-fa on` 2.0" in lines
    assert lines[-1].endswith("commit abc1234; `python scripts/bench/compare.py`")


def test_a_plot_is_drawn(parts: SimpleNamespace, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    parts.report.plot(measured(parts), tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_the_worst_cosine_of_all_rounds_is_kept(parts: SimpleNamespace) -> None:
    cosines: dict[str, Any] = {}
    ours = np.eye(2, dtype=np.float32)
    parts.results.see_cosines(cosines, "a", ours, 3 * ours)
    parts.results.see_cosines(cosines, "a", ours, np.array([[1, 0], [1, 0]], np.float32))
    assert cosines["a"] == {"min": 0.0, "mean": 0.75, "n": 4}


def test_a_cell_of_another_model_is_not_added_to(parts: SimpleNamespace) -> None:
    results = {"cells": {}}
    parts.results.cell_of(results, "m/128", {"digest": "a", "texts": 4})
    assert parts.results.cell_of(results, "m/128", {"digest": "a", "texts": 4})["rounds"] == []
    with pytest.raises(ValueError, match="m/128 was measured with digest a, this run has b"):
        parts.results.cell_of(results, "m/128", {"digest": "b", "texts": 4})


def test_results_land_whole(parts: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "r.json"
    parts.results.write(path, {"cells": {}})
    with pytest.raises(TypeError):
        parts.results.write(path, {"cells": object()})
    assert parts.results.read(path) == {"cells": {}, "batches": {}}


def test_every_tensor_has_its_name_in_the_checkpoint(parts: SimpleNamespace) -> None:
    name_of = parts.checkpoint.name_of
    assert name_of("token_embd.weight") == "embed_tokens.weight"
    assert name_of("output_norm.weight") == "norm.weight"
    assert name_of("blk.12.attn_q_norm.weight") == "layers.12.self_attn.q_norm.weight"
    assert name_of("blk.0.ffn_down.weight") == "layers.0.mlp.down_proj.weight"


# The whole of it, on the demo model


def rounds(path: Path, cell: str) -> list[set[str]]:
    return [set(each) - {"run"} for each in json.loads(path.read_text())["cells"][cell]["rounds"]]


def test_contenders_give_the_same_vectors_and_a_run_goes_on_where_it_was(
    tmp_path: Path, tiny_gguf: Callable[..., Path]
) -> None:
    """In float32, which no CPU's llama.cpp repacks: `Llama` would for AMX, which can end its process."""
    output = tmp_path / "c.json"
    common = ("--model", f"{tiny_gguf('f32')}=demo", "--quick", "--output", output, "--plot", tmp_path / "c.png")
    first = compare(*common, "--only", "16", "--contender", "llama-embed")
    assert first.exit_code == 0, first.output
    assert rounds(output, "demo/16") == [{"library", "llama-embed"}]
    # The command and the server are new; library comes with them, llama-embed has its round.
    second = compare(*common, "--only", "16", *(f"--contender={name}" for name in ("llama-embed", "cli", "http")))
    assert second.exit_code == 0, second.output
    assert rounds(output, "demo/16") == [{"library", "llama-embed"}, {"library", "cli", "http"}]
    third = compare(*common, "--only", "16", "--contender", "cli")
    assert "all here already" in third.stderr
    fourth = compare(*common, "--only", "16", "--contender", "llama-server")
    assert "llama-server: left out: no --llama-server was given" in fourth.stderr
    found = json.loads(output.read_text())
    cell = found["cells"]["demo/16"]
    assert len(found["runs"]) == 3  # the third had nothing to do, the fourth says who was left out
    assert [each["run"] for each in cell["rounds"]] == [0, 1]
    for each in cell["rounds"]:
        assert all(one["tokens"] == 16 * one["texts"] for name, one in each.items() if name != "run")
    assert all(cell["cosine"][name]["min"] > 0.999 for name in ("library", "llama-embed", "cli", "http"))
    # Of the first round of each run that measured something.
    assert all(cell["exactness"][name]["min"] > 0.99999 for name in ("library", "llama-embed", "cli", "http"))
    assert all(cell["memory"][name]["peak_rss"] > 1e6 for name in ("library", "llama-embed", "cli", "http"))
    assert "**q3e-local, library**" in (tmp_path / "c.md").read_text()


# Contenders that die


DIES = "import os, signal, sys\nprint('GGML_ASSERT(tile) failed', file=sys.stderr, flush=True)\n"
DIES += "os.kill(os.getpid(), signal.SIGILL)\n"
DIES_WHEN_ASKED = """
import os, signal, sys
from http.server import BaseHTTPRequestHandler, HTTPServer

class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()

    def do_POST(self):
        os.kill(os.getpid(), signal.SIGILL)

HTTPServer(("127.0.0.1", int(sys.argv[sys.argv.index("--port") + 1])), Handler).serve_forever()
"""
# Python imports a module of this name when it starts.
DIES_AS = "import os, signal, sys\nif {part!r} in ' '.join(sys.orig_argv):\n    os.kill(os.getpid(), signal.SIGILL)\n"
SIGILL = "SIGILL (this build of llama.cpp uses instructions that this CPU lacks or that its compiler got wrong)"

posix = pytest.mark.skipif(sys.platform == "win32", reason="signals")


@posix
@pytest.mark.parametrize(
    ("content", "how"),
    [
        (DIES, f"{SIGILL}: GGML_ASSERT(tile) failed, while it started; see program-"),
        ("import sys\nsys.exit('no such flag')", "exit code 1: no such flag, while it started; see program-"),
        (DIES_WHEN_ASKED, SIGILL),
    ],
)
def test_a_contender_that_dies_is_a_row_and_the_rest_goes_on(tmp_path: Path, content: str, how: str) -> None:
    output, server = tmp_path / "c.json", program(tmp_path, content)
    common = ("--model", f"{DEMO}=demo", "--quick", "--output", output, "--llama-server", server)
    result = compare(
        *common, "--only", "16", "--only", "128", *(f"--contender={name}" for name in ("cli", "llama-server"))
    )
    assert result.exit_code == 0, result.output
    cells = json.loads(output.read_text())["cells"]
    for cell in cells.values():
        assert list(cell["died"]) == ["llama-server"]
        assert cell["died"]["llama-server"].startswith(how)
        assert cell["skipped"] == {}
    assert rounds(output, "demo/16") == rounds(output, "demo/128") == [{"library", "cli"}]
    table = (tmp_path / "c.md").read_text()
    assert table.count(f"|  | llama-server, defaults | died: {how}") == 2
    assert f"llama-server: died: {how}" in result.stderr


@posix
def test_a_contender_that_died_is_tried_again_in_the_next_run_and_no_longer_dead_when_it_lives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "c.json"
    arguments = ("--model", f"{DEMO}=demo", "--quick", "--output", output, "--only", "16", "--contender", "cli")
    with monkeypatch.context() as patched:
        (tmp_path / "sitecustomize.py").write_text(DIES_AS.format(part="q3e_local embed"))
        patched.setenv("PYTHONPATH", str(tmp_path))
        assert compare(*arguments).exit_code == 0
    cell = json.loads(output.read_text())["cells"]["demo/16"]
    assert (cell["died"], rounds(output, "demo/16")) == ({"cli": SIGILL}, [{"library"}])
    assert compare(*arguments).exit_code == 0
    cell = json.loads(output.read_text())["cells"]["demo/16"]
    assert (cell["died"], rounds(output, "demo/16")) == ({}, [{"library"}, {"library", "cli"}])


@posix
@pytest.mark.parametrize(
    ("part", "how", "measured"),
    [
        ("comparison/child.py", SIGILL, [{"cli"}]),
        ("spawn_main", f"{SIGILL}, when the texts were made: there are none", []),
    ],
)
def test_where_this_project_itself_dies_the_others_have_their_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str, how: str, measured: list[set[str]]
) -> None:
    output = tmp_path / "c.json"
    (tmp_path / "sitecustomize.py").write_text(DIES_AS.format(part=part))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    arguments = ("--model", f"{DEMO}=demo", "--quick", "--output", output, "--only", "16", "--only", "queries")
    result = compare(*arguments, "--contender", "cli")
    assert result.exit_code == 0, result.output
    cells = json.loads(output.read_text())["cells"]
    assert [cells[name]["died"] for name in ("demo/16", "demo/queries")] == [{"library": how}] * 2
    assert rounds(output, "demo/16") == rounds(output, "demo/queries") == measured
    table = (tmp_path / "c.md").read_text()
    assert f"**q3e-local, library** | died: {how} |" in table
    assert table.count("q3e-local, command |") == 2 * len(measured)


@posix
def test_a_contender_that_does_not_answer_in_time_has_died(
    parts: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts.contenders, "ANSWER_S", 0.2)
    mute = parts.contenders.InChild("library", {}, tmp_path, str(program(tmp_path, "import time\ntime.sleep(600)")))
    with pytest.raises(parts.contenders.DiedError, match=r"^no answer for 0\.2 s$"):
        mute.start()


def test_table_and_plot_show_who_died(parts: SimpleNamespace, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    results = measured(parts)
    results["cells"]["0.6b/128"]["died"] = {"llama-embed": SIGILL, "llama-server": "exit code 1: a | b"}
    lines = parts.report.markdown(results).splitlines()
    assert f"|  | `Llama.embed` | died: {SIGILL} |  |  |  |  |  |" in lines
    assert any(r"| llama-server, defaults | 250 (200 to 300); died: exit code 1: a \| b |" in line for line in lines)
    from matplotlib import axes

    said: list[str] = []
    with pytest.MonkeyPatch.context() as patched:
        annotate = axes.Axes.annotate
        patched.setattr(
            axes.Axes, "annotate", lambda self, text, *a, **b: (said.append(text), annotate(self, text, *a, **b))
        )
        parts.report.plot(results, tmp_path / "plot.png")
    assert said == ["Llama.embed died: SIGILL", "llama-server, defaults died: exit code 1"]
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_clients_send_single_texts_and_who_is_not_here_is_named(tmp_path: Path) -> None:
    output = tmp_path / "c.json"
    arguments = (
        "--model",
        f"{DEMO}=demo",
        "--quick",
        "--output",
        output,
        "--only",
        "clients-64",
        "--only",
        "queries",
    )
    result = compare(*arguments, "--contender", "http", "--contender", "llama-server")
    assert result.exit_code == 0, result.output
    cells = json.loads(output.read_text())["cells"]
    (clients,) = cells["demo/clients-64"]["rounds"]
    assert (clients["http"]["texts"], list(clients["http"]["latency_ms"])) == (128, ["p50", "p90", "p99"])
    assert cells["demo/clients-64"]["skipped"] == {"llama-server": "no --llama-server was given"}
    assert cells["demo/queries"]["cosine"]["http"]["min"] > 0.999
    assert cells["demo/queries"]["cosine"]["http"]["n"] == 64


def test_the_same_file_again_is_measured_anew_when_asked_to(tmp_path: Path) -> None:
    output = tmp_path / "c.json"
    arguments = ("--model", f"{DEMO}=demo", "--quick", "--output", output, "--only", "16", "--contender", "library")
    for extra in ((), ("--again",)):
        assert compare(*arguments, *extra).exit_code == 0
    found = json.loads(output.read_text())
    assert [each["run"] for each in found["cells"]["demo/16"]["rounds"]] == [1]


def test_whoever_reads_fewer_tokens_or_gives_no_vectors_fails(parts: SimpleNamespace) -> None:
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


def test_a_child_says_why_it_cannot_run(parts: SimpleNamespace, tmp_path: Path) -> None:
    wrong = parts.contenders.InChild("library", {"model": str(tmp_path / "none.gguf")}, tmp_path)
    with pytest.raises(RuntimeError, match="there is no file"):
        wrong.start()
    if importlib.util.find_spec("fastembed"):
        return
    absent = parts.contenders.InChild("fastembed", {"name": "0.6b", "folder": "", "n_threads": 1}, tmp_path)
    with pytest.raises(parts.kind.NotHereError, match="not installed"):
        absent.start()


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
