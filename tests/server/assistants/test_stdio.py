"""`q3e-local mcp` as assistants start it: by the SDK's own client, and by hand on its pipes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest
from assistants import data, refused
from command import PROGRAM, assert_refused, run
from mcp import Client, StdioServerParameters
from served_indexes import NOTES

from q3e_local.search.places import indexes_folder

PATIENCE_S = 60
INITIALIZE = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {
        "protocolVersion": "2025-06-18",
        "capabilities": {},
        "clientInfo": {"name": "test", "version": "1"},
    },
}


def started(*arguments: object) -> subprocess.Popen[bytes]:
    command = [*PROGRAM, "mcp", *map(str, arguments)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def sent(process: subprocess.Popen[bytes], message: dict) -> dict:
    """The line that comes in answer to a message."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps(message).encode() + b"\n")
    process.stdin.flush()
    return json.loads(process.stdout.readline())


async def test_a_client_searches_and_reads(folder: Path) -> None:
    program, *arguments = PROGRAM
    server = StdioServerParameters(
        command=program, args=[*arguments, "mcp", str(folder / "notes.q3e")], env=dict(os.environ)
    )
    async with Client(server, mode="legacy") as client:
        assert len((await client.list_tools()).tools) == 3
        found = await data(client, "search", query="what may the garden cost?", mode="vectors")
        assert {hit["id"] for hit in found["hits"]} == set(NOTES)
        assert "is not in this index" in await refused(client, "get", id="nothing")


def test_the_first_answer_comes_before_a_model_is_loaded_and_stdout_has_the_protocol_alone(folder: Path) -> None:
    with started(folder / "notes.q3e", "--explain") as process:
        assert sent(process, INITIALIZE)["result"]["serverInfo"]["name"] == "q3e-local"
        assert sent(process, {"jsonrpc": "2.0", "id": 2, "method": "tools/list"})["result"]["tools"]
        call = {"name": "search", "arguments": {"query": "the garden"}}
        answer = sent(process, {"jsonrpc": "2.0", "id": 3, "method": "tools/call", "params": call})
        assert answer["result"]["structuredContent"]["hits"]
        rest, lines = process.communicate(timeout=PATIENCE_S)  # stdin ends
    assert rest == b""
    assert process.returncode == 0
    assert b"loaded demo" in lines


def test_a_signal_ends_it_while_its_stdin_is_open(folder: Path) -> None:
    with started(folder / "notes.q3e") as process:
        sent(process, INITIALIZE)
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_S) == 0


@pytest.mark.parametrize(
    ("arguments", "code", "part"),
    [
        (("nothing",), 1, "there is no index named nothing"),
        (("nothing.q3e",), 1, "there is no index nothing.q3e"),
        ((), 1, "there is no index yet; make one with: q3e-local index FOLDER"),
        (("a b",), 2, "an index is named, or given as the path of a .q3e file"),
    ],
)
def test_what_cannot_be_served_is_told_on_stderr(arguments: tuple[str, ...], code: int, part: str) -> None:
    assert_refused(("mcp", *arguments), code, [part])


def test_without_the_sdk_the_command_says_what_to_install(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("q3e_local.server.assistants.find_spec", lambda name: None)
    assert_refused(("mcp", folder / "notes.q3e"), 1, ["pip install 'q3e-local[mcp]'"])


def test_an_index_that_cannot_be_used_is_left_out_of_all_and_told(tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    notes.mkdir()
    (notes / "a.txt").write_text("The oak stays.")
    assert run("index", notes, "--name", "good", "-m", "demo", "-q").exit_code == 0
    (indexes_folder() / "bad.q3e").write_bytes(b"no index at all")
    (indexes_folder() / "moved.q3e").symlink_to(tmp_path / "not mounted.q3e")
    with started() as process:
        sent(process, INITIALIZE)
        call = {"name": "list_indexes", "arguments": {}}
        answer = sent(process, {"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": call})
        assert [each["name"] for each in answer["result"]["structuredContent"]["indexes"]] == ["good"]
        _, lines = process.communicate(timeout=PATIENCE_S)
    assert b"the index bad is left out: " in lines
    assert b"the index moved is left out: " in lines
