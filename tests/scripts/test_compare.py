"""The whole comparison on the demo model: the same vectors from all, and a run goes on whoever dies."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest
from comparing import program, quick

pytestmark = pytest.mark.usefixtures("parts")


def rounds(path: Path, cell: str) -> list[set[str]]:
    return [set(each) - {"run"} for each in json.loads(path.read_text())["cells"][cell]["rounds"]]


def test_contenders_give_the_same_vectors_and_a_run_goes_on_where_it_was(tmp_path, tiny_gguf):
    """In float32, which no CPU's llama.cpp repacks: `Llama` would for AMX, which can end its process."""
    output = tmp_path / "c.json"
    common = (output, "--model", f"{tiny_gguf('f32')}=demo", "--plot", tmp_path / "c.png")
    quick(*common, contenders=["llama-embed"])
    assert rounds(output, "demo/16") == [{"library", "llama-embed"}]
    # The command and the server are new; library comes with them, llama-embed has its round.
    quick(*common, contenders=["llama-embed", "cli", "http"])
    assert rounds(output, "demo/16") == [{"library", "llama-embed"}, {"library", "cli", "http"}]
    assert "all here already" in quick(*common, contenders=["cli"]).stderr
    said = quick(*common, contenders=["llama-server"]).stderr
    assert "llama-server: left out: no --llama-server was given" in said
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
def test_a_contender_that_dies_is_a_row_and_the_rest_goes_on(tmp_path, content, how):
    output, server = tmp_path / "c.json", program(tmp_path, content)
    both = ["cli", "llama-server"]
    result = quick(output, "--llama-server", server, only=["16", "128"], contenders=both)
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
def test_a_contender_that_died_is_tried_again_in_the_next_run_and_no_longer_dead_when_it_lives(tmp_path, monkeypatch):
    output = tmp_path / "c.json"
    with monkeypatch.context() as patched:
        (tmp_path / "sitecustomize.py").write_text(DIES_AS.format(part="q3e_local embed"))
        patched.setenv("PYTHONPATH", str(tmp_path))
        quick(output, contenders=["cli"])
    cell = json.loads(output.read_text())["cells"]["demo/16"]
    assert (cell["died"], rounds(output, "demo/16")) == ({"cli": SIGILL}, [{"library"}])
    quick(output, contenders=["cli"])
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
def test_where_this_project_itself_dies_the_others_have_their_figures(tmp_path, monkeypatch, part, how, measured):
    output = tmp_path / "c.json"
    (tmp_path / "sitecustomize.py").write_text(DIES_AS.format(part=part))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    quick(output, only=["16", "queries"], contenders=["cli"])
    cells = json.loads(output.read_text())["cells"]
    assert [cells[name]["died"] for name in ("demo/16", "demo/queries")] == [{"library": how}] * 2
    assert rounds(output, "demo/16") == rounds(output, "demo/queries") == measured
    table = (tmp_path / "c.md").read_text()
    assert f"**q3e-local, library** | died: {how} |" in table
    assert table.count("q3e-local, command |") == 2 * len(measured)


@posix
def test_a_contender_that_does_not_answer_in_time_has_died(parts, tmp_path, monkeypatch):
    monkeypatch.setattr(parts.contenders, "ANSWER_S", 0.2)
    mute = parts.contenders.InChild("library", {}, tmp_path, str(program(tmp_path, "import time\ntime.sleep(600)")))
    with pytest.raises(parts.contenders.DiedError, match=r"^no answer for 0\.2 s$"):
        mute.start()


def test_clients_send_single_texts_and_who_is_not_here_is_named(tmp_path):
    output = tmp_path / "c.json"
    quick(output, only=["clients-64", "queries"], contenders=["http", "llama-server"])
    cells = json.loads(output.read_text())["cells"]
    (clients,) = cells["demo/clients-64"]["rounds"]
    assert (clients["http"]["texts"], list(clients["http"]["latency_ms"])) == (128, ["p50", "p90", "p99"])
    assert cells["demo/clients-64"]["skipped"] == {"llama-server": "no --llama-server was given"}
    assert cells["demo/queries"]["cosine"]["http"]["min"] > 0.999
    assert cells["demo/queries"]["cosine"]["http"]["n"] == 64


def test_again_replaces_the_rounds_of_the_same_file(tmp_path):
    output = tmp_path / "c.json"
    for extra in ((), ("--again",)):
        quick(output, *extra, contenders=["library"])
    found = json.loads(output.read_text())
    assert [each["run"] for each in found["cells"]["demo/16"]["rounds"]] == [1]


def test_a_child_says_why_it_cannot_run(parts, tmp_path):
    wrong = parts.contenders.InChild("library", {"model": str(tmp_path / "none.gguf")}, tmp_path)
    with pytest.raises(RuntimeError, match="there is no file"):
        wrong.start()
    if importlib.util.find_spec("fastembed"):
        return
    absent = parts.contenders.InChild("fastembed", {"name": "0.6b", "folder": "", "n_threads": 1}, tmp_path)
    with pytest.raises(parts.kind.NotHereError, match="not installed"):
        absent.start()
