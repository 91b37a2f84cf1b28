"""`serve`, `ps`, `stop`, `service` and `embed --server` as people call them, on a real server with a fake service."""

from __future__ import annotations

import http.server
import json
import os
import plistlib
import re
import shutil
import socket
import subprocess
import sys
import threading
from configparser import ConfigParser
from pathlib import Path

import numpy as np
import psutil
import pytest
from command import PROGRAM, records, run
from server_process import N_EMBD, running_server

from q3e_local.cache import choose
from q3e_local.cli.commands import units
from q3e_local.cli.commands.serve import SERVER_VARIABLES, chosen_settings, serve
from q3e_local.cli.computing.remote.connection import server_address
from q3e_local.llama.kernels import choice, in_use
from q3e_local.models.catalog import models_folder
from q3e_local.search.database import Database
from q3e_local.search.database.records import IndexSpace
from q3e_local.server import settings as server_settings


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
    assert [one["id"] for one in found] == ["text:1", "text:2", "text:3"]
    assert [one["tokens"] for one in found] == [4, 3, 2]
    assert {one["space"] for one in found} == {"q3e1-fafafafafafafafa-64-plain"}
    for one in found:
        np.testing.assert_allclose(one["embedding"], expected(one["tokens"]), rtol=1e-6)
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
    assert [one["id"] for one in records(skipping.stdout)] == ["text:1", "text:3"]
    assert "2 skipped:" in skipping.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["-d", "16"], 2, "Error: --dimensions must be between 32 and 64 for demo, got 16"),
        (["-m", "nobody"], 2, "Error: the server: there is no model 'nobody'"),
        (["--threads", "2"], 2, "Error: --threads, --explain and their like are for a model in this process"),
        (
            ["--server", "ftp://x"],
            2,
            "Error: a server's address is one of http or https, or unix:PATH, got 'ftp://x'",
        ),
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
    assert [one["tokens"] for one in records(result.stdout)] == [5]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as one:
        port: int = one.getsockname()[1]
    return port


def test_nobody_answers(url):
    address = f"127.0.0.1:{free_port()}"
    for result in (on(address, "--text", "a"), run("ps", "--server", address), run("stop", "x", "--server", address)):
        assert result.exit_code == 1
        assert result.stderr == f"Error: no server answers at http://{address}; start one with: q3e-local serve\n"


def test_another_server_answers(url):
    class Other(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            body = b"404 page not found"
            self.send_response(404)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Other) as other:
        threading.Thread(target=other.serve_forever, daemon=True).start()
        result = on(f"127.0.0.1:{other.server_port}", "--text", "a")
        other.shutdown()
    assert result.exit_code == 1
    assert "is no q3e-local: it does not know /q3e/model" in result.stderr


def test_a_key_comes_from_the_environment(monkeypatch, tmp_path):
    with running_server(api_keys=["k"], models=["demo"]) as running:
        assert "wants a key; set Q3E_API_KEY to it" in on(running.url, "--text", "a").stderr
        monkeypatch.setenv("Q3E_API_KEY", "k")
        assert on(running.url, "--text", "a").exit_code == 0
        assert run("ps", "--server", running.url).exit_code == 0


def test_a_server_says_which_kernels_its_models_compute_with(real):
    wanted = in_use.chosen().fields()
    assert on(real.url, "--text", "load it").exit_code == 0
    (loaded,) = json.loads(real.ask("GET", "/health")[2])["loaded"]
    assert loaded["kernels"] == wanted
    (row,) = run("ps", "--server", real.url).stdout.splitlines()[1:]
    assert row.split()[4] == wanted["variant"]


@pytest.mark.skipif(sys.platform == "win32", reason="Unix sockets")
def test_a_unix_socket(tmp_path, monkeypatch):
    path = tmp_path / "s"
    with running_server(unix_socket=str(path), models=["demo"]) as running:
        running.wait_for("try: ")
        monkeypatch.setenv("Q3E_SERVER", f"unix:{path}")
        assert run("embed", "-m", "demo", "--text", "abc").exit_code == 0
        assert run("ps").stdout.splitlines()[1].startswith("demo")


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
    port = url.rpartition(":")[2]
    assert run("ps", "--server", port).exit_code == 0
    refused = run("ps", "--server", str(free_port()))
    assert "no server answers at http://127.0.0.1:" in refused.stderr


@pytest.mark.parametrize(
    ("given", "environ", "expected"),
    [
        ("a:1", {"Q3E_SERVER": "b:2", "OLLAMA_HOST": "c:3"}, "a:1"),
        (None, {"Q3E_SERVER": "b:2", "OLLAMA_HOST": "c:3"}, "b:2"),
        (None, {"Q3E_SERVER": " ", "OLLAMA_HOST": "'c:3'"}, "c:3"),
        (None, {}, "http://127.0.0.1:11434"),
    ],
)
def test_which_server_a_command_asks(given, environ, expected):
    assert server_address(given, environ) == expected


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--port", "70000"], "port must be between 0 and 65535, got 70000"),
        (["--host", "127.0.0.1:80"], "--host is a name or an address, got '127.0.0.1:80'"),
        (["--keep-alive", "soon"], "keep_alive must be seconds or a duration"),
        (["--api-key", ""], "an API key must be printable ASCII"),
        (["--api-key", "a,"], "an API key must be printable ASCII"),
        (["--api-key", "a b"], "an API key must be printable ASCII"),
    ],
)
def test_serve_refuses_options_that_cannot_be(arguments, said):
    result = run("serve", *arguments)
    assert result.exit_code == 2
    assert said in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_keys_are_parted_by_commas_in_the_option_as_in_the_variable():
    asked = serve.make_context("q3e-local serve", ["--api-key", "a,b", "--api-key", " c , d"]).params
    by_option = chosen_settings(asked, {}).api_keys
    none = serve.make_context("q3e-local serve", []).params
    assert by_option == chosen_settings(none, {"Q3E_API_KEY": "a,b, c , d"}).api_keys == ("a", "b", "c", "d")


@pytest.fixture
def platform(monkeypatch, tmp_path):
    def become(name: str) -> None:
        monkeypatch.setattr(units.sys, "platform", name)
        monkeypatch.setattr(Path, "home", lambda: tmp_path)
        monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)

    return become


def test_a_systemd_unit_is_printed_installed_and_removed(platform, tmp_path, monkeypatch):
    platform("linux")
    monkeypatch.setenv("Q3E_HOME", "/a home/100%$")
    options = ("--", "-m", "demo", "--keep-alive", "-1")
    printed = run("service", "print", *options)
    assert printed.exit_code == 0
    unit = ConfigParser(interpolation=None, strict=False)
    unit.optionxform = str
    unit.read_string(printed.stdout)
    assert unit["Service"]["ExecStart"] == f"{sys.executable} -m q3e_local serve -m demo --keep-alive -1"
    assert '"Q3E_HOME=/a home/100%%$"' in printed.stdout
    assert "EnvironmentFile=-/a home/100%%$/config/serve.env\n" in printed.stdout
    path = tmp_path / ".config" / "systemd" / "user" / "q3e-local.service"
    assert not path.exists()
    installed = run("service", "install", *options)
    assert installed.exit_code == 0
    assert "systemctl --user enable --now q3e-local" in installed.stdout
    assert path.read_text() == printed.stdout
    assert run("service", "install", *options).exit_code == 0  # the same again
    other = run("service", "install")
    assert (other.exit_code, path.read_text()) == (1, printed.stdout)
    assert "--force" in other.stderr
    assert run("service", "install", "--force").exit_code == 0
    removed = run("service", "uninstall")
    assert (removed.exit_code, path.exists()) == (0, False)
    assert "systemctl --user disable --now q3e-local" in removed.stdout
    assert run("service", "uninstall").exit_code == 0


def test_a_launchd_agent(platform, tmp_path):
    platform("darwin")
    installed = run("service", "install", "--", "--port", "1234")
    assert installed.exit_code == 0
    path = tmp_path / "Library" / "LaunchAgents" / "local.q3e.serve.plist"
    agent = plistlib.loads(path.read_bytes())
    assert agent["ProgramArguments"][4:] == [sys.executable, "-m", "q3e_local", "serve", "--port", "1234"]
    assert agent["RunAtLoad"] is True
    assert "launchctl bootstrap" in installed.stdout
    assert "launchctl bootout" in run("service", "uninstall").stdout


@pytest.fixture
def manager(tmp_path, monkeypatch):
    """A service manager that says what a test has it say."""

    def says(name: str, output: str, code: int = 0) -> Path:
        folder = tmp_path / "bin"
        folder.mkdir(exist_ok=True)
        program = folder / name
        program.write_text(f'#!/bin/sh\necho "$*" > "{folder}/asked"\necho "{output}"\nexit {code}\n')
        program.chmod(0o755)
        monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
        return folder / "asked"

    return says


POSIX = pytest.mark.skipif(os.name == "nt", reason="services of Linux and macOS")


@POSIX
def test_the_status_of_a_service_that_runs(platform, manager, url, tmp_path):
    platform("linux")
    asked = manager("systemctl", "active")
    port = url.rpartition(":")[2]
    assert run("service", "install", "--", "--host", "0.0.0.0", "--port", port, "--origins", "a%b").exit_code == 0
    assert on(url, "--text", "load it").exit_code == 0
    result = run("service", "status")
    path = tmp_path / ".config" / "systemd" / "user" / "q3e-local.service"
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.splitlines()[:2] == [f"file     {path}: there", "service  active"]
    assert re.fullmatch(rf"server   http://127\.0\.0\.1:{port} answers; demo.*", result.stdout.splitlines()[2])
    assert asked.read_text() == "--user is-active q3e-local\n"


@POSIX
def test_the_status_of_a_service_that_is_not_there(platform, manager, tmp_path, monkeypatch):
    platform("linux")
    manager("systemctl", "inactive", 3)
    address = f"http://127.0.0.1:{free_port()}"
    result = run("service", "status", "--server", address)
    path = tmp_path / ".config" / "systemd" / "user" / "q3e-local.service"
    assert (result.exit_code, result.stderr) == (1, "")
    assert result.stdout.splitlines() == [
        f"file     {path}: not there; write it with: q3e-local service install",
        "service  inactive",
        f"server   no server answers at {address}; start one with: q3e-local serve",
    ]
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "service  unknown: there is no systemctl here\n" in run("service", "status", "--server", address).stdout


@POSIX
def test_the_status_of_a_launchd_agent_that_failed(platform, manager):
    platform("darwin")
    asked = manager("launchctl", "state = spawn scheduled")
    port = free_port()
    assert run("service", "install", "--", "--port", str(port)).exit_code == 0
    result = run("service", "status")
    assert result.exit_code == 1
    assert "service  inactive\n" in result.stdout
    assert f"no server answers at http://127.0.0.1:{port}" in result.stdout
    assert "launchctl bootstrap" in result.stderr
    assert asked.read_text().startswith("print gui/")
    manager("launchctl", "state = running")
    assert "service  active\n" in run("service", "status").stdout
    manager("launchctl", "Could not find service", 113)
    assert "service  not switched on\n" in run("service", "status").stdout


def test_a_service_on_windows_is_answered_with_what_to_do(platform):
    platform("win32")
    result = run("service", "print")
    assert result.exit_code == 2
    assert "not supported on Windows; in the Task Scheduler" in result.stderr


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--api-key", "k"], "others can read a key in this file; write a line Q3E_API_KEY='...' into "),
        (["--api-key=k"], "others can read a key in this file; write a line Q3E_API_KEY='...' into "),
        (["--prot", "1"], "--prot"),
        (["-m", "nope"], "there is no model 'nope'"),
        (["-m", "demo", "-m", "./nope.gguf"], "nope.gguf"),
        (["-m", "qwen3-embedding:4b"], "qwen3-embedding:4b (2.5 GB) is not on this machine"),
        (
            ["--keep-alive", "banana"],
            "keep_alive must be seconds or a duration such as 5m",
        ),
        (["--port", "70000"], "port must be between 0 and 65535"),
        (["--host", "127.0.0.1:80"], "--host is a name or an address"),
        (["--index", "nope"], "there is no index named nope; make it with: q3e-local index FOLDER --name nope"),
        (["--index", "./nope.q3e"], "there is no index nope.q3e; make it with: q3e-local index FOLDER --db nope.q3e"),
    ],
)
@pytest.mark.parametrize("command", ["print", "install"])
def test_a_service_with_options_that_cannot_be(command, options, said, platform, tmp_path):
    platform("linux")
    result = run("service", command, "--", *options)
    assert result.exit_code in (1, 2)
    assert said in result.stderr
    assert result.stdout == ""
    assert not (tmp_path / ".config").exists()


def test_a_service_has_paths_that_mean_the_same_from_everywhere(platform, tmp_path, monkeypatch):
    platform("linux")
    monkeypatch.chdir(tmp_path)
    shutil.copy(models_folder() / "demo.gguf", tmp_path / "own one.gguf")
    monkeypatch.setenv("Q3E_HOME", "here")
    monkeypatch.setenv("XDG_CACHE_HOME", "cache")
    for name in ("own one.q3e", "here/data/indexes/minutes.q3e"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Database.create(name, IndexSpace("", "", 64)).close()
    options = [
        "-m",
        "own one.gguf",
        "-m",
        "demo",
        "--index",
        "own one.q3e",
        "--index",
        "minutes",
        "--unix-socket",
        "s",
    ]
    printed = run("service", "print", "--", *options).stdout
    models, indexes = f'-m "{tmp_path}/own one.gguf" -m demo', f'--index "{tmp_path}/own one.q3e" --index minutes'
    assert f"serve {models} {indexes} --unix-socket {tmp_path}/s\n" in printed
    assert f"Environment=Q3E_HOME={tmp_path}/here\n" in printed
    assert f"Environment=XDG_CACHE_HOME={tmp_path}/cache\n" in printed
    assert f"EnvironmentFile=-{tmp_path}/here/config/serve.env\n" in printed


def test_a_service_says_which_settings_of_this_shell_it_has_not(platform, tmp_path, monkeypatch):
    platform("linux")
    monkeypatch.setenv("Q3E_HOME", str(tmp_path))
    assert "not taken over" not in run("service", "print").stderr
    for name, value in {"OLLAMA_HOST": "1.2.3.4:5", "Q3E_KEEP_ALIVE": "banana", "Q3E_API_KEY": "secret"}.items():
        monkeypatch.setenv(name, value)
    result = run("service", "print")
    assert result.exit_code == 0
    file = tmp_path / "config" / "serve.env"
    assert (
        f"not taken over from this shell: Q3E_KEEP_ALIVE, OLLAMA_HOST; give them as options behind --, or write them "
        f"into {file}\n"
    ) in result.stderr
    assert f"not taken over from this shell: Q3E_API_KEY; write a line Q3E_API_KEY='...' into {file}" in result.stderr
    assert "secret" not in result.output
    assert "1.2.3.4" not in result.stdout
    file.parent.mkdir()
    file.touch()
    file.chmod(0o644)
    assert f"WARNING: others can read {file}; chmod 600 {file}" in run("service", "print").stderr
    file.chmod(0o600)
    assert "WARNING" not in run("service", "print").stderr


@pytest.mark.parametrize("flag", ["--cache", "--no-cache"])
def test_a_service_keeps_a_flag_as_it_was_given(platform, flag):
    platform("linux")
    assert f"serve --port 1 {flag}\n" in run("service", "print", "--", flag, "--port", "1").stdout


def test_a_service_warns_of_what_serve_warns_of(platform):
    platform("linux")
    assert (
        "WARNING: keep_alive 0 unloads what --model"
        in run("service", "print", "--", "-m", "demo", "--keep-alive", "0").stderr
    )


def test_every_variable_of_a_server_is_one_that_a_service_is_asked_about():
    source = "".join(Path(one.__file__).read_text(encoding="utf-8") for one in (server_settings, choose, choice))
    assert set(re.findall(r'"((?:Q3E|OLLAMA)_[A-Z_]+)"', source)) - {"OLLAMA_VERSION"} == set(SERVER_VARIABLES)


@pytest.mark.skipif(sys.platform == "win32", reason="a shell of POSIX")
def test_what_launchd_runs_reads_the_settings_file(platform, tmp_path, monkeypatch):
    monkeypatch.setenv("Q3E_HOME", str(tmp_path / "a home"))
    real = sys.platform
    platform("darwin")
    printed = run("service", "print", "--", "--port", "1234").stdout
    platform(real)
    words = plistlib.loads(printed.encode())["ProgramArguments"]
    shell, file, command = words[:3], words[3], words[4:]
    assert command[1:] == ["-m", "q3e_local", "serve", "--port", "1234"]
    say = [sys.executable, "-c", "import os; print(os.environ.get('Q3E_API_KEY'))"]
    assert subprocess.run([*shell, file, *say], capture_output=True, check=True, text=True).stdout == "None\n"
    Path(file).parent.mkdir(parents=True)
    Path(file).write_text("# mine\nQ3E_API_KEY='k$1,\"x'\n")
    got = subprocess.run([*shell, file, *say], capture_output=True, check=True, text=True)
    assert got.stdout == 'k$1,"x\n'


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
        assert [(one["id"], one["tokens"], one["truncated"], one["space"]) for one in records(there.stdout)] == [
            (one["id"], one["tokens"], one["truncated"], one["space"]) for one in records(here.stdout)
        ]
        for one, other in zip(records(there.stdout), records(here.stdout), strict=True):
            np.testing.assert_allclose(one["embedding"], other["embedding"], atol=1e-5)


def test_the_command_line_starts_without_the_server():
    program = (
        "import sys\n"
        "from q3e_local.cli import main\n"
        "try:\n    main(sys.argv[1:])\n"
        "except SystemExit:\n    pass\n"
        "heavy = {'starlette', 'uvicorn', 'prometheus_client', 'llama_cpp', 'uvloop'} & set(sys.modules)\n"
        "sys.exit(' '.join(heavy) or 0)\n"
    )
    for arguments in (["--help"], ["serve", "--help"], ["serve", "--port", "-1"], ["service", "print"], ["ps", "-h"]):
        got = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, check=False)
        assert got.returncode == 0, got.stderr


def test_python_m_has_the_commands():
    got = subprocess.run([*PROGRAM, "--help"], capture_output=True, check=True, text=True)
    for name in ("serve", "ps", "stop", "service"):
        assert f"\n  {name} " in got.stdout


@pytest.mark.parametrize(
    ("given", "written"),
    [
        (["--threads", "3", "--batch-tokens=64"], ["--threads", "3", "--batch-tokens", "64"]),
        (["--explain", "--threads=1"], ["--threads", "1", "--explain"]),
        ([], []),
    ],
)
def test_a_service_runs_models_as_it_was_told(given, written):
    printed = run("service", "print", "--", *given).stdout
    assert " ".join(["serve", *written]) in " ".join(re.findall(r"[\w./=-]+", printed))
    assert ("explain" in printed) == ("explain" in str(written))
