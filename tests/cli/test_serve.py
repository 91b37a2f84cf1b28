"""`serve` and `service` as people call them: options that cannot be, and the files and states of a user service."""

from __future__ import annotations

import os
import plistlib
import re
import shutil
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path

import pytest
from command import run, write
from server_process import running_server

from q3e_local.cache import choose
from q3e_local.cli.commands import units
from q3e_local.cli.commands.serve import SERVER_VARIABLES, chosen_settings, serve
from q3e_local.llama.kernels import choice
from q3e_local.models.catalog import models_folder
from q3e_local.search.database import Database
from q3e_local.search.database.records import IndexSpace
from q3e_local.server import settings as server_settings

POSIX = pytest.mark.skipif(os.name == "nt", reason="services of Linux and macOS")
NOBODY = "http://127.0.0.1:9"  # discard: nobody listens
SYSTEMD = Path(".config/systemd/user/q3e-local.service")


# Options that `serve` refuses, and what it says.
REFUSED = [
    (["--port", "70000"], "port must be between 0 and 65535, got 70000"),
    (["--host", "127.0.0.1:80"], "--host is a name or an address, got '127.0.0.1:80'"),
    (["--keep-alive", "soon"], "keep_alive must be seconds or a duration such as 5m"),
]


@pytest.mark.parametrize(
    ("options", "said"),
    [*REFUSED, *((["--api-key", key], "an API key must be printable ASCII") for key in ("", "a,", "a b"))],
)
def test_serve_refuses_options_that_cannot_be(options, said):
    result = run("serve", *options)
    assert (result.exit_code, len(result.stderr.splitlines()), said in result.stderr) == (2, 1, True), result.stderr


def test_keys_are_parted_by_commas_in_the_option_as_in_the_variable():
    def keys(*options: str, **environ: str) -> tuple[str, ...]:
        return chosen_settings(serve.make_context("q3e-local serve", list(options)).params, environ).api_keys

    assert keys("--api-key", "a,b", "--api-key", " c , d") == ("a", "b", "c", "d")
    assert keys(Q3E_API_KEY="a,b, c , d") == ("a", "b", "c", "d")


@pytest.fixture
def platform(monkeypatch, tmp_path):
    def become(name: str) -> None:
        monkeypatch.setattr(units.sys, "platform", name)
        monkeypatch.setattr(Path, "home", lambda: tmp_path)
        monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)

    return become


@pytest.fixture
def linux(platform):
    platform("linux")


def test_a_systemd_unit_is_printed_installed_and_removed(linux, tmp_path, monkeypatch):
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
    path = tmp_path / SYSTEMD
    assert not path.exists()
    installed = run("service", "install", *options)
    assert installed.exit_code == 0
    assert "systemctl --user enable --now q3e-local" in installed.stdout
    assert path.read_text() == printed.stdout
    assert run("service", "install", *options).exit_code == 0  # the same content is no conflict
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
    """Put a service manager of this name in place that prints `output`, and give the file with its arguments."""

    def says(name: str, output: str, code: int = 0) -> Path:
        folder = tmp_path / "bin"
        folder.mkdir(exist_ok=True)
        program = folder / name
        program.write_text(f'#!/bin/sh\necho "$*" > "{folder}/calls"\necho "{output}"\nexit {code}\n')
        program.chmod(0o755)
        monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
        return folder / "calls"

    return says


@POSIX
def test_the_status_of_a_service_that_runs(linux, manager, tmp_path):
    calls = manager("systemctl", "active")
    with running_server(models=["demo"]) as running:
        running.wait_for("try: ")
        port = running.url.rpartition(":")[2]
        assert run("service", "install", "--", "--host", "0.0.0.0", "--port", port, "--origins", "a%b").exit_code == 0
        result = run("service", "status")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.splitlines()[:2] == [f"file     {tmp_path / SYSTEMD}: there", "service  active"]
    assert re.fullmatch(rf"server   http://127\.0\.0\.1:{port} answers; demo.*", result.stdout.splitlines()[2])
    assert calls.read_text() == "--user is-active q3e-local\n"


@POSIX
def test_the_status_of_a_service_that_is_not_there(linux, manager, tmp_path, monkeypatch):
    manager("systemctl", "inactive", 3)
    result = run("service", "status", "--server", NOBODY)
    assert (result.exit_code, result.stderr) == (1, "")
    assert result.stdout.splitlines() == [
        f"file     {tmp_path / SYSTEMD}: not there; write it with: q3e-local service install",
        "service  inactive",
        f"server   no server answers at {NOBODY}; start one with: q3e-local serve --port 9",
    ]
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "service  unknown: there is no systemctl here\n" in run("service", "status", "--server", NOBODY).stdout


@POSIX
def test_the_status_of_a_launchd_agent_that_failed(platform, manager):
    platform("darwin")
    calls = manager("launchctl", "state = spawn scheduled")
    assert run("service", "install", "--", "--port", "9").exit_code == 0
    result = run("service", "status")
    assert result.exit_code == 1
    assert "service  inactive\n" in result.stdout
    assert f"no server answers at {NOBODY}" in result.stdout
    assert "launchctl bootstrap" in result.stderr
    assert calls.read_text().startswith("print gui/")
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
        *REFUSED,
        (["--index", "nope"], "there is no index named nope; make it with: q3e-local index FOLDER --name nope"),
        (["--index", "./nope.q3e"], "there is no index nope.q3e; make it with: q3e-local index FOLDER --db nope.q3e"),
    ],
)
@pytest.mark.parametrize("command", ["print", "install"])
def test_a_service_with_options_that_cannot_be(command, options, said, linux, tmp_path):
    result = run("service", command, "--", *options)
    assert (result.exit_code in (1, 2), result.stdout) == (True, "")
    assert said in result.stderr
    assert not (tmp_path / ".config").exists()


def test_a_service_has_paths_that_mean_the_same_from_everywhere(linux, tmp_path, monkeypatch):
    shutil.copy(models_folder() / "demo.gguf", tmp_path / "own one.gguf")
    monkeypatch.setenv("Q3E_HOME", "here")
    monkeypatch.setenv("XDG_CACHE_HOME", "cache")
    for name in ("own one.q3e", "here/data/indexes/minutes.q3e"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Database.create(name, IndexSpace("", "", 64)).close()
    models, indexes = ("-m", "own one.gguf", "-m", "demo"), ("--index", "own one.q3e", "--index", "minutes")
    printed = run("service", "print", "--", *models, *indexes, "--unix-socket", "s").stdout
    written = f'-m "{tmp_path}/own one.gguf" -m demo --index "{tmp_path}/own one.q3e" --index minutes'
    assert f"serve {written} --unix-socket {tmp_path}/s\n" in printed
    assert f"Environment=Q3E_HOME={tmp_path}/here\n" in printed
    assert f"Environment=XDG_CACHE_HOME={tmp_path}/cache\n" in printed
    assert f"EnvironmentFile=-{tmp_path}/here/config/serve.env\n" in printed


def test_a_service_says_which_settings_of_this_shell_it_has_not(linux, tmp_path, monkeypatch):
    monkeypatch.setenv("Q3E_HOME", str(tmp_path))
    monkeypatch.delenv("Q3E_KERNELS", raising=False)
    assert "not taken over" not in run("service", "print").stderr
    for name, value in {"OLLAMA_HOST": "1.2.3.4:5", "Q3E_KEEP_ALIVE": "banana", "Q3E_API_KEY": "secret"}.items():
        monkeypatch.setenv(name, value)
    result = run("service", "print")
    assert result.exit_code == 0
    file = tmp_path / "config" / "serve.env"
    left_out = "not taken over from this shell: Q3E_KEEP_ALIVE, OLLAMA_HOST"
    assert f"{left_out}; give them as options behind --, or write them into {file}\n" in result.stderr
    assert f"not taken over from this shell: Q3E_API_KEY; write a line Q3E_API_KEY='...' into {file}" in result.stderr
    assert "secret" not in result.output
    assert "1.2.3.4" not in result.stdout
    write(tmp_path, {"config/serve.env": ""})
    file.chmod(0o644)
    assert f"WARNING: others can read {file}; chmod 600 {file}" in run("service", "print").stderr
    file.chmod(0o600)
    assert "WARNING" not in run("service", "print").stderr


@pytest.mark.parametrize(
    ("options", "written"),
    [
        ("--threads 3 --batch-tokens=64", "--threads 3 --batch-tokens 64"),
        ("--explain --threads=1", "--threads 1 --explain"),
        ("--cache --port 1", "--port 1 --cache"),
        ("--no-cache", "--no-cache"),
    ],
)
def test_a_service_serves_with_the_options_it_was_installed_with(linux, options, written):
    assert f" serve {written}\n" in run("service", "print", "--", *options.split()).stdout


def test_a_service_warns_of_what_serve_warns_of(linux):
    said = run("service", "print", "--", "-m", "demo", "--keep-alive", "0").stderr
    assert "WARNING: keep_alive 0 unloads what --model" in said


def test_a_service_knows_every_variable_that_has_a_setting_of_the_server():
    sources = [Path(module.__file__).read_text(encoding="utf-8") for module in (server_settings, choose, choice)]
    variables = re.findall(r'"((?:Q3E|OLLAMA)_[A-Z_]+)"', "".join(sources))
    assert {*variables} - {"OLLAMA_VERSION"} == {*SERVER_VARIABLES}


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
    write(Path(file).parent, {"serve.env": "# mine\nQ3E_API_KEY='k$1,\"x'\n"})
    got = subprocess.run([*shell, file, *say], capture_output=True, check=True, text=True)
    assert got.stdout == 'k$1,"x\n'
