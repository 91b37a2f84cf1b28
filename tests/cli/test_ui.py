"""`q3e-local ui`: the page of a server that runs, or of one that it starts and stops."""

from __future__ import annotations

import os
import signal
import stat
import sys
import webbrowser
from pathlib import Path

import httpx
import pytest
from command import PROGRAM, failed, run
from fake_service import FakeService, served
from served_indexes import make
from server_process import running_server
from waiting import until


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The addresses that the browser is sent to."""
    addresses: list[str] = []
    monkeypatch.setattr(webbrowser, "open", lambda address: addresses.append(address) or True)
    return addresses


def test_the_page_of_a_server_that_runs_is_opened(opened: list[str]) -> None:
    with served(FakeService()) as http:
        address = str(http.base_url).rstrip("/")
        result = run("ui", "--server", address)
        assert (result.exit_code, result.stdout, opened) == (0, f"{address}/ui\n", [f"{address}/ui"])
        assert run("ui", "--server", address, "--no-open").stdout == f"{address}/ui\n"
        assert len(opened) == 1


def test_without_a_browser_the_address_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webbrowser, "open", lambda address: False)
    with served(FakeService()) as http:
        result = run("ui", "--server", str(http.base_url))
    assert result.stderr == "no browser was found; open the address above in one\n"


def test_a_server_without_the_index_is_not_opened(opened: list[str], tmp_path: Path) -> None:
    path = make(tmp_path / "mine.q3e", {"a": "the oak"}, 64)
    with served(FakeService(), indexes=(str(path),)) as http:
        assert run("ui", "--server", str(http.base_url), "--index", str(path)).exit_code == 0
        said = failed("ui", "--server", str(http.base_url), "--index", "other", code=2)
    assert "does not search other; start another beside it with: q3e-local ui --port 0 --index other" in said
    assert len(opened) == 1


def test_a_model_to_load_is_not_ignored_where_a_server_runs(opened: list[str]) -> None:
    with served(FakeService()) as http:
        said = failed("ui", "--server", str(http.base_url), "-m", "demo", code=2)
    assert "start another server beside it with: q3e-local ui --port 0 -m demo" in said
    assert opened == []


def test_where_no_server_answers_the_message_says_how_to_start_one(opened: list[str]) -> None:
    said = failed("ui", "--server", "http://127.0.0.1:1", code=2)
    assert "no q3e-local server answers at http://127.0.0.1:1; start one with: q3e-local ui" in said
    assert "give one of them" in failed("ui", "--server", "http://127.0.0.1:1", "--port", "0", code=2)
    assert "a browser cannot open unix:/tmp/a" in failed("ui", "--server", "unix:/tmp/a", code=2)
    assert opened == []


@pytest.mark.skipif(sys.platform == "win32", reason="a browser that is a shell script")
def test_it_starts_a_server_opens_its_page_and_stops_it(tmp_path: Path) -> None:
    """With all indexes that can be searched, and a line for one that cannot."""
    home, said = tmp_path / "q3e", tmp_path / "opened"
    (home / "data" / "indexes").mkdir(parents=True)
    make(home / "data" / "indexes" / "mine.q3e", {"a": "the oak"}, 64)
    (home / "data" / "indexes" / "broken.q3e").write_bytes(b"no index, but longer than nothing " * 100)
    browser = tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\necho "$1" > {said}.part\nmv {said}.part {said}\n', encoding="utf-8")
    browser.chmod(browser.stat().st_mode | stat.S_IXUSR)
    env = {"Q3E_HOME": str(home), "BROWSER": f"{browser} %s", "PYTHONPATH": os.environ.get("PYTHONPATH", "")}
    with running_server(program=[*PROGRAM, "ui", "--port", "0"], env=env) as running:
        running.wait_for("the index broken is left out")
        until(said.exists)
        page = said.read_text(encoding="utf-8").strip()
        assert page == f"{running.url}/ui"
        with httpx.Client(trust_env=False) as client:
            assert client.get(page).text.startswith("<!doctype html>")
            found = client.get(f"{running.url}/api/indexes").json()["indexes"]
        assert [index["name"] for index in found] == ["mine"]
        assert running.end(signal.SIGINT) == 0
