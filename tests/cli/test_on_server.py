"""`embed --server`, `ps` and `stop` as people call them, on a real server: with a fake service, and as it is."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import psutil
import pytest
from command import PROGRAM, records, run
from server_process import N_EMBD, running_server

from q3e_local.llama.kernels import in_use
from q3e_local.remote.connection import server_address

NOBODY = "127.0.0.1:9"  # discard: nobody listens


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    home = str(tmp_path_factory.mktemp("home"))
    with running_server(env={"Q3E_HOME": home, "HF_HUB_CACHE": home}, models=["demo"]) as running:
        yield running


@pytest.fixture
def url(server, monkeypatch):
    for name in ("Q3E_SERVER", "OLLAMA_HOST", "Q3E_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    return server.url


def on(url, *arguments, input=None):
    return run("embed", "-m", "demo", "--server", url, *arguments, input=input)


def expected(n_tokens: int, dim: int = N_EMBD) -> np.ndarray:
    vector = np.zeros(dim, np.float32)
    vector[:2] = n_tokens, 1
    return vector / np.linalg.norm(vector)


def test_embed_on_a_server(url):
    result = on(url, "--text", "abc", "--text", "de", "--text", "f")
    assert result.exit_code == 0
    found = records(result.stdout)
    assert [record["id"] for record in found] == ["text:1", "text:2", "text:3"]
    assert [record["tokens"] for record in found] == [4, 3, 2]
    assert {record["space"] for record in found} == {"q3e1-fafafafafafafafa-64-plain"}
    for record in found:
        np.testing.assert_allclose(record["embedding"], expected(record["tokens"]), rtol=1e-6)
    assert "model demo, dim 64, space q3e1-fafafafafafafafa-64-plain" in result.stderr


def test_options_reach_the_server(url):
    result = on(url, "--text", "abcdefgh", "-d", "32", "--as", "query", "--max-tokens", "5")
    (found,) = records(result.stdout)
    assert (found["tokens"], found["truncated"], found["space"]) == (5, True, "q3e1-fafafafafafafafa-32-query")
    assert len(found["embedding"]) == 32
    assert "1 text cut to the limit: text:1" in result.stderr


def test_many_texts_go_in_windows_and_keep_their_order(url, tmp_path):
    lines = [("x" * (i % 40)) + "y" for i in range(2000)]
    (tmp_path / "lines").write_text("\n".join(lines))
    result = on(url, "--lines", tmp_path / "lines", "-o", tmp_path / "out.npy")
    assert result.exit_code == 0
    vectors = np.load(tmp_path / "out.npy")
    wanted = np.stack([expected(len(line) + 1) for line in lines])
    np.testing.assert_allclose(vectors, wanted, rtol=1e-6)


def test_a_text_that_is_too_long_is_named_and_the_others_are_done(url):
    texts = [argument for text in ("ok", "x" * 60, "fine", "y" * 70) for argument in ("--text", text)]
    failed = on(url, *texts, "--too-long", "error")
    assert (failed.exit_code, len(records(failed.stdout))) == (1, 1)
    assert "text:2 has 61 tokens, the limit is 50; truncate it or split it" in failed.stderr
    skipping = on(url, *texts, "--too-long", "error", "--skip-errors")
    assert skipping.exit_code == 3
    assert [record["id"] for record in records(skipping.stdout)] == ["text:1", "text:3"]
    assert "2 skipped:" in skipping.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["-d", "16"], 2, "Error: --dimensions must be between 32 and 64 for demo, got 16"),
        (["-m", "nobody"], 2, "Error: the server: there is no model 'nobody'"),
        (["--threads", "2"], 2, "Error: --threads is for a model in this process; the server has its own"),
        (["--device", "none"], 2, "Error: --device is for a model in this process; the server has its own"),
        (["--gpu-layers", "0"], 2, "Error: --gpu-layers is for a model in this process; the server has its own"),
        (["--explain"], 2, "Error: --explain is for a model in this process; the server chose its settings itself"),
        (["--server", "ftp://x"], 2, "Error: a server's address is one of http or https, or unix:PATH, got 'ftp:"),
    ],
)
def test_what_is_refused_is_said_as_the_library_says_it(arguments, code, said, url, tmp_path):
    result = on(url, "--text", "a", *arguments, "-o", tmp_path / "out.jsonl")
    assert result.exit_code == code
    assert result.stderr.startswith(said)
    assert len(result.stderr.splitlines()) == 1
    assert not (tmp_path / "out.jsonl").exists()


def test_a_busy_server_is_asked_again(url):
    result = on(url, "--text", "busy")
    assert result.exit_code == 0
    assert [record["tokens"] for record in records(result.stdout)] == [5]


@pytest.mark.parametrize("command", [("embed", "-m", "demo", "--text", "a"), ("ps",), ("stop", "x")])
def test_nobody_answers(command):
    result = run(*command, "--server", NOBODY)
    assert result.exit_code == 1
    assert result.stderr == f"Error: no server answers at http://{NOBODY}; start one with: q3e-local serve --port 9\n"


def test_a_key_comes_from_the_environment(monkeypatch, tmp_path):
    with running_server(api_keys=["k"], models=["demo"]) as running:
        assert "wants a key; set Q3E_API_KEY to it" in on(running.url, "--text", "a").stderr
        # It read as if there were none.
        monkeypatch.setenv("Q3E_API_KEY", "wrong")
        refused = f"Error: {running.url}: the server does not accept the key in Q3E_API_KEY\n"
        assert on(running.url, "--text", "a").stderr == refused
        assert run("ps", "--server", running.url).stderr == refused
        monkeypatch.setenv("Q3E_API_KEY", "k")
        assert on(running.url, "--text", "a").exit_code == 0
        assert run("ps", "--server", running.url).exit_code == 0


@pytest.mark.skipif(sys.platform == "win32", reason="Unix sockets")
def test_a_unix_socket(tmp_path, monkeypatch):
    path = tmp_path / "s"
    with running_server(unix_socket=str(path), models=["demo"]) as running:
        running.wait_for("try: ")
        monkeypatch.setenv("Q3E_SERVER", f"unix:{path}")
        assert run("embed", "-m", "demo", "--text", "abc").exit_code == 0
        assert run("ps").stdout.splitlines()[1].startswith("demo")


@pytest.mark.skipif(sys.platform == "win32", reason="Unix sockets")
def test_nobody_answers_at_a_unix_socket():
    # In a process of its own: httpcore leaves a socket open that could not be connected, which warns when it goes.
    asked = [*PROGRAM, "ps", "--server", "unix:/nowhere/a socket"]
    said = subprocess.run(asked, capture_output=True, text=True, check=False).stderr
    assert said == (
        "Error: no server answers at unix:/nowhere/a socket; "
        "start one with: q3e-local serve --unix-socket '/nowhere/a socket'\n"
    )


def test_ps_and_stop(url, monkeypatch):
    monkeypatch.setenv("OLLAMA_HOST", url)
    assert on(url, "--text", "load it").exit_code == 0
    shown = run("ps")
    heading, line = shown.stdout.splitlines()
    assert heading.split() == ["name", "size", "processor", "kernels", "context", "until"]
    assert line.split()[0].startswith("demo")
    assert " CPU        avx2 " in line
    assert shown.stderr == "for more speed, buy a faster one\n"
    assert line.endswith(("in 5 min", "in 300 s"))
    (fields,) = json.loads(run("ps", "--json").stdout)
    assert fields["name"].startswith("demo")
    assert fields["kernels"]["why"] == "the fastest that this CPU runs"
    assert run("stop", "demo").stdout == "demo is unloaded\n"
    again = run("stop", "demo")
    assert (again.exit_code, again.stdout) == (0, "demo was not loaded\n")
    assert (run("ps").stdout, run("ps").stderr) == ("", "no model is loaded\n")
    missing = run("stop", "nobody")
    assert missing.exit_code == 1
    assert "nobody" in missing.stderr


def test_a_number_is_a_port_of_this_machine(url):
    assert run("ps", "--server", url.rpartition(":")[2]).exit_code == 0
    assert "no server answers at http://127.0.0.1:9;" in run("ps", "--server", "9").stderr


@pytest.mark.parametrize(
    ("option", "environ", "address"),
    [
        ("a:1", {"Q3E_SERVER": "b:2", "OLLAMA_HOST": "c:3"}, "a:1"),
        (None, {"Q3E_SERVER": "b:2", "OLLAMA_HOST": "c:3"}, "b:2"),
        (None, {"Q3E_SERVER": " ", "OLLAMA_HOST": "'c:3'"}, "c:3"),
        (None, {}, "http://127.0.0.1:11434"),
    ],
)
def test_which_server_a_command_asks(option, environ, address):
    assert server_address(option, environ) == address


def test_a_command_that_asks_one_server_does_not_choose_among_several(monkeypatch):
    monkeypatch.setenv("Q3E_SERVER", f"a:1, {NOBODY}")
    for command in (("ps",), ("stop", "x"), ("ui", "--no-open")):
        refused = run(*command)
        assert (refused.exit_code, refused.stdout) == (2, "")
        assert refused.stderr == "Error: Q3E_SERVER names 2 servers, say which: --server a:1\n"
    assert f"no server answers at http://{NOBODY}" in run("ps", "--server", NOBODY).stderr


# `q3e-local serve` itself.


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """`q3e-local serve` as people start it, with the demo model; nobody else's settings reach it."""
    home = str(tmp_path_factory.mktemp("home"))
    program = [*PROGRAM, "serve", "--port", "0", "-m", "demo"]
    with running_server(env={"Q3E_HOME": home, "HF_HUB_CACHE": home}, program=program) as running:
        yield running
        if sys.platform != "win32":
            workers = psutil.Process(running.process.pid).children(recursive=True)
            assert running.end() == 0
            assert psutil.wait_procs(workers, timeout=60)[1] == []


@pytest.mark.parametrize(
    "options",
    [
        [], ["--as", "query"], ["--task", "sts", "-d", "64"], ["--format", "base64"], ["--format", "json"],
        ["--format", "csv", "--dtype", "int8"], ["--max-tokens", "3"], ["--as", "query", "--instruction", "Find it"],
    ],
)  # fmt: skip
def test_a_server_gives_the_same_output_as_this_process(options, real, monkeypatch, tmp_path):
    (tmp_path / "lines").write_text("one\ncaf\u00e9 and cafe\u0301\n\u4f60\u597d\n<|endoftext|>\n" + "long " * 300)
    here = run("embed", "-m", "demo", "--lines", tmp_path / "lines", *options)
    monkeypatch.setenv("Q3E_SERVER", real.url)
    there = run("embed", "-m", "demo", "--lines", tmp_path / "lines", *options)
    assert (here.exit_code, there.exit_code) == (0, 0)
    assert there.stderr.splitlines()[1:] == here.stderr.splitlines()[1:]  # the first tells the speed
    if here.stdout_bytes != there.stdout_bytes:
        # Other neighbours in a batch change the last digit.
        for record, other in zip(records(there.stdout), records(here.stdout), strict=True):
            np.testing.assert_allclose(record.pop("embedding"), other.pop("embedding"), atol=1e-5)
            assert record == other


def test_a_server_says_which_kernels_its_models_compute_with(real):
    wanted = in_use.chosen().fields()
    assert on(real.url, "--text", "load it").exit_code == 0
    (loaded,) = json.loads(real.ask("GET", "/health")[2])["loaded"]
    assert loaded["kernels"] == wanted
    (row,) = run("ps", "--server", real.url).stdout.splitlines()[1:]
    assert row.split()[4] == wanted["variant"]
