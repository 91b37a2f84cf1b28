"""`q3e-local pull`: one command from nothing to a checked model, whatever happens on the way."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from command import PROGRAM, failed, records, run
from hub import REFUSED, Fault
from waiting import until
from world import F16, Q4_K_M, Q8_0, digest, origins, rows

import q3e_local
from q3e_local.gguf.model_file import inspect
from q3e_local.models.download import http, silence

posix = pytest.mark.skipif(os.name == "nt", reason="signals and terminals")


# One file


def test_a_pinned_file_comes_from_the_hub_and_is_said_on_stderr(world):
    result = run("pull", "tiny:1b-q8_0")
    path = world.cache / "models--Someone--Tiny-1B-GGUF" / "snapshots" / ("0123456789abcdef" * 3)[:40] / Q8_0
    assert (result.exit_code, result.stdout) == (0, f"tiny:1b-q8_0 is at {path}\n")
    host, size = world.hub.url.removeprefix("http://"), f"{world.q8_0.stat().st_size / 1e6:.1f} MB"
    assert result.stderr == f"Pulling tiny:1b-q8_0: {Q8_0}, {size}, from Someone/Tiny-1B-GGUF on {host}\n"
    assert path.read_bytes() == world.q8_0.read_bytes()
    assert origins() == {"tiny:1b-q8_0": "pulled"}
    assert run("pull", "tiny:1b-q8_0", "--offline").exit_code == 0


def test_a_second_pull_asks_nobody_and_says_where_it_is(world):
    first = run("pull", "tiny:1b-q8_0")
    world.hub.requests.clear()
    again = run("pull", "Someone/Tiny-1B-GGUF:Q8_0")
    assert (again.exit_code, again.stdout, again.stderr) == (0, first.stdout, "")
    assert world.hub.requests == []


def test_quiet_says_only_the_result(world):
    result = run("pull", "tiny:1b-q8_0", "-q")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.startswith("tiny:1b-q8_0 is at ")


def test_modelscope_when_it_is_asked_for(world):
    result = run("pull", "tiny:1b-q8_0", "--source", "modelscope")
    assert result.exit_code == 0
    assert f"on {world.modelscope.url.removeprefix('http://')}\n" in result.stderr
    assert world.hub.requests == []
    assert world.requests() == [Q8_0]
    assert Path(rows()["tiny:1b-q8_0"]["path"]).read_bytes() == world.q8_0.read_bytes()


def test_without_a_logger_the_word_is_on_stderr(world, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", REFUSED)
    result = subprocess.run([*PROGRAM, "pull", "tiny:1b-q8_0"], capture_output=True, text=True)
    assert result.returncode == 0
    assert "cannot reach 127.0.0.1:9" in result.stderr


def test_a_silent_hub_is_told_with_what_else_can_be_done(world, monkeypatch, silent_host):
    monkeypatch.setattr(silence, "FIRST_S", 0.05)
    monkeypatch.setattr(silence, "AGAIN_S", 0.05)
    monkeypatch.setattr(http, "READ_TIMEOUT_S", 3.0)  # within which the other source answers on a busy machine
    monkeypatch.setenv("HF_ENDPOINT", f"http://{silent_host}")
    result = run("pull", "tiny:1b-q8_0")
    assert run("rm", "tiny:1b-q8_0", "-y").exit_code == 0
    quiet = run("pull", "tiny:1b-q8_0", "-q")
    assert (result.exit_code, quiet.exit_code, quiet.stderr) == (0, 0, "")
    _, first, advice, second, *_ = result.stderr.splitlines()
    waiting = f"waiting for {silent_host}: no answer for 0 s, at most 3 s; then {world.modelscope.url[7:]} is asked"
    assert (first, second) == (waiting, waiting)  # what else can be done is told once
    assert advice == (
        "Ctrl-C ends, and the same command goes on from here; or unset HF_ENDPOINT, which is "
        f"'http://{silent_host}', or set it to another mirror, such as https://hf-mirror.com"
    )


@pytest.mark.parametrize("forbidden", ["--offline", "HF_HUB_OFFLINE"])
@pytest.mark.parametrize("name", ["tiny:1b-q8_0", "tiny:1b"])
def test_offline_asks_nobody_and_announces_nothing(world, monkeypatch, forbidden, name):
    if forbidden == "HF_HUB_OFFLINE":
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    stderr = failed("pull", name, *(["--offline"] if forbidden == "--offline" else []))
    assert re.fullmatch(r"Error: Tiny-1B-.* is not on this machine .*q3e-local import PATH\n", stderr)
    assert world.hub.requests + world.modelscope.requests == []


def test_another_content_than_the_cards_is_refused_and_deleted(world):
    content = world.q8_0.read_bytes()
    world.hub.has_linked_headers = False
    world.hub.faults.append(Fault(content=content[:-1] + bytes([content[-1] ^ 1])))
    stderr = failed("pull", "tiny:1b-q8_0", "--source", "hub")
    assert "with SHA-256" in stderr
    assert "--source" in stderr
    assert world.models() == []
    assert origins() == {}
    assert run("pull", "tiny:1b-q8_0").exit_code == 0


def test_an_unknown_name_is_answered_with_the_nearest(world):
    assert failed("pull", "tiny:2b", code=2) == (
        "Error: there is no model 'tiny:2b'; did you mean tiny:1b, tiny:1b-f16 or tiny:1b-q8_0? "
        "All models: q3e-local list --all; or give the path of a .gguf file\n"
    )


def test_what_another_program_put_there_is_checked_and_stays_theirs(world):
    run("pull", "tiny:1b-q8_0")
    shutil.rmtree(world.home / "data")
    shutil.rmtree(world.home / "state")
    world.hub.requests.clear()
    assert origins() == {"tiny:1b-q8_0": "found"}
    assert run("pull", "tiny:1b-q8_0").exit_code == 0
    assert world.hub.requests == []
    assert origins() == {"tiny:1b-q8_0": "found"}


def test_a_record_that_cannot_be_written_is_a_sentence(world):
    (world.home / "data").write_text("a file where the folder should be")
    stderr = failed("pull", "tiny:1b-q8_0")
    assert stderr.splitlines()[-1].startswith("Error: cannot write ")
    assert "Q3E_HOME" in stderr


def test_the_demo_model_is_always_there(world):
    result = run("pull", "demo")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.startswith("demo is at ")


# A file that is made of another


def test_making_is_one_command_in_two_steps_and_leaves_only_the_result(world):
    result = run("pull", "tiny:1b")
    assert result.exit_code == 0, result.stderr
    size, host = f"{world.f16.stat().st_size / 1e6:.1f} MB", world.hub.url.removeprefix("http://")
    assert result.stderr.splitlines() == [
        "Pulling tiny:1b, in two steps:",
        f"  1. download {F16}, {size}, from Someone/Tiny-1B-GGUF on {host}",
        "  2. quantize it here to q4_k_m, about 1.4 MB",
    ]
    assert origins() == {"tiny:1b": "made"}
    assert world.models() == [Q4_K_M]
    path = Path(rows()["tiny:1b"]["path"])
    assert result.stdout == f"tiny:1b is at {path}\n"
    assert inspect(path).quantization == "q4_k_m"
    assert digest(path) in run("show", "tiny:1b").stdout
    # Again: nobody is asked, nothing is made.
    world.hub.requests.clear()
    again = run("pull", "Tiny-1B")
    assert (again.exit_code, again.stdout, again.stderr) == (0, result.stdout, "")
    assert world.hub.requests == []
    # And away with it.
    assert run("rm", "tiny:1b", "-y").exit_code == 0
    assert world.models() == []
    assert not path.parent.exists()


def test_keep_keeps_what_it_was_made_from_as_ours(world):
    assert run("pull", "tiny:1b", "--keep").exit_code == 0
    assert origins() == {"tiny:1b": "made", "tiny:1b-f16": "pulled"}
    assert run("rm", "-y", "tiny:1b-f16").exit_code == 0
    assert world.models() == [Q4_K_M]


@pytest.mark.parametrize("before", ["pulled", "found", "imported"])
def test_what_was_there_before_is_used_and_stays(world, before):
    if before == "imported":
        run("import", world.f16)
    else:
        run("pull", "tiny:1b-f16")
    if before == "found":
        shutil.rmtree(world.home / "data")
    world.hub.requests.clear()
    result = run("pull", "tiny:1b")
    assert result.exit_code == 0
    assert re.fullmatch(r"Making tiny:1b: quantizing .*\.gguf to q4_k_m, about 1\.4 MB\n", result.stderr)
    assert origins() == {"tiny:1b": "made", "tiny:1b-f16": before}
    assert world.hub.requests == []


def test_a_quantizer_that_fails_leaves_the_download_for_the_next_pull(world, monkeypatch):
    free = shutil.disk_usage
    small = iter([free(world.home.parent), SimpleNamespace(free=1 << 20)])
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: next(small))
    assert "make room" in failed("pull", "tiny:1b")
    assert origins() == {"tiny:1b-f16": "pulled"}
    monkeypatch.setattr(shutil, "disk_usage", free)
    world.hub.requests.clear()
    assert run("pull", "tiny:1b").exit_code == 0
    assert world.hub.requests == []
    assert world.models() == [Q4_K_M]


def test_what_was_left_for_the_next_pull_stays_when_it_is_pulled_itself(world, monkeypatch):
    with monkeypatch.context() as patched:
        small = iter([shutil.disk_usage(world.home.parent), SimpleNamespace(free=1 << 20)])
        patched.setattr(shutil, "disk_usage", lambda folder: next(small))
        run("pull", "tiny:1b")
    assert run("pull", "tiny:1b-f16").exit_code == 0
    assert run("pull", "tiny:1b").exit_code == 0
    assert world.models() == [Q4_K_M, F16]


@posix
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP", "SIGKILL"])
def test_interrupted_while_quantizing_the_next_pull_works_and_nothing_half_stays(world, name):
    process = start("pull", "tiny:1b")
    until(lambda: any((world.home / "data").glob("**/q3e-convert-*")) or process.poll() is not None)
    process.send_signal(getattr(signal, name))
    _, err = process.communicate(timeout=30)
    assert process.returncode == (-signal.SIGKILL if name == "SIGKILL" else 130), err
    assert origins() == {"tiny:1b-f16": "pulled"}
    if name != "SIGKILL":
        assert world.models() == [F16]
    result = run("pull", "tiny:1b")
    assert result.exit_code == 0, result.stderr
    assert not any((world.home / "data").glob("**/q3e-convert-*"))
    assert world.models() == [Q4_K_M]
    assert world.requests() == [F16]


def test_a_quantization_that_cannot_be_made_is_said_before_downloading(world):
    world.write_card(("[files.q4_k_m]", "[files.iq4_xs]"), ('default = "q4_k_m"', 'default = "iq4_xs"'))
    assert f"{world.card}: files.iq4_xs cannot be made; only f32, f16" in failed("pull", "tiny:1b")
    assert world.hub.requests == []


def test_two_processes_at_once_make_one_file(world):
    both = [start("pull", "tiny:1b") for _ in range(2)]
    answers = [process.communicate(timeout=60) for process in both]
    assert [process.returncode for process in both] == [0, 0], answers
    assert answers[0][0] == answers[1][0]
    assert world.models() == [Q4_K_M]
    assert world.requests() == [F16]
    with q3e_local.load("tiny:1b") as embedder:
        assert np.isfinite(embedder.embed_documents(["a text"]).vectors).all()


# Other commands that need a model


@pytest.mark.parametrize("name", ["tiny:1b-q8_0", "tiny:1b"])
def test_embed_says_what_it_pulls_and_gives_the_vectors_of_that_file(world, name):
    result = run("embed", "-m", name, "-q", "--text", "a force", "--as", "query")
    assert result.exit_code == 0, result.stderr
    assert result.stderr.startswith(f"Pulling {name}")
    assert origins() == {name: "made" if name == "tiny:1b" else "pulled"}
    (record,) = records(result.stdout)
    with q3e_local.load(rows()[name]["path"]) as embedder:
        prompt = "Instruct: Find it\nQuery:a force"  # the card's, not that of a path
        np.testing.assert_array_equal(record["embedding"], embedder.embed_documents([prompt]).vectors[0])
    again = run("embed", "-m", name, "-q", "--text", "a force", "--as", "query")
    assert (again.exit_code, again.stdout, again.stderr) == (0, result.stdout, "")


@pytest.mark.parametrize("forbidden", ["--offline", "HF_HUB_OFFLINE"])
@pytest.mark.parametrize("command", [["embed", "--text", "one", "-m"], ["verify"]])
def test_no_command_pulls_when_it_must_not(world, monkeypatch, forbidden, command):
    if forbidden == "HF_HUB_OFFLINE":
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    stderr = failed(*command, "tiny:1b", *(["--offline"] if forbidden == "--offline" else []))
    assert stderr.startswith("Error: tiny:1b (0.0 GB) is not on this machine. Get it with: q3e-local pull")
    assert world.hub.requests + world.modelscope.requests == []


def test_the_library_never_pulls(world):
    with pytest.raises(q3e_local.Q3EError, match="q3e-local pull tiny:1b"):
        q3e_local.load("tiny:1b")
    assert world.hub.requests == []


@posix
@pytest.mark.parametrize("where", ["terminal", "pipe"])
def test_bars_are_for_terminals(world, where):
    ours, theirs = os.openpty() if where == "terminal" else os.pipe()
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "200"}
    done = subprocess.run(
        [*PROGRAM, "pull", "tiny:1b-q8_0"], stdout=subprocess.PIPE, stderr=theirs, text=True, env=environment
    )
    os.close(theirs)
    said = read_all(ours)
    assert (done.returncode, done.stdout.count("\n")) == (0, 1)
    assert ("checking" in said or "downloading from" in said) == (where == "terminal")
    assert ("\x1b" in said) == (where == "terminal")


def start(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen([*PROGRAM, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def read_all(number: int) -> str:
    pieces = []
    while True:
        try:
            piece = os.read(number, 1 << 16)
        except OSError:  # what a terminal gives at its end
            piece = b""
        if not piece:
            os.close(number)
            return b"".join(pieces).decode()
        pieces.append(piece)


@pytest.mark.parametrize("command", [["pull"], ["verify", "--offline"], ["rm"]])
def test_a_model_without_a_pinned_file_says_how_to_convert_it(world, command):
    says = failed(*command, "qwen3-reranker:4b")
    if command == ["rm"]:
        assert says.startswith("Error: qwen3-reranker:4b is not on this machine; q3e-local list shows what is")
        return
    assert says.startswith("Error: qwen3-reranker:4b is not on this machine and cannot be pulled: no file of it is")
    assert "  q3e-local convert Qwen/Qwen3-Reranker-4B --type q4_k_m -o Qwen3-Reranker-4B-Q4_K_M.gguf\n" in says
    assert "  q3e-local import Qwen3-Reranker-4B-Q4_K_M.gguf --name qwen3-reranker:4b\n" in says
    assert world.hub.requests == []
