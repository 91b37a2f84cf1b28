"""The `ollama` and `openai` packages of the npm registry on a real server: they get what the library computes.

Skipped where node, npm or the registry is not there; `node/clients.mjs` is the other side.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import PROGRAM, demo
from paths import TESTS
from server_process import running_server

# Newer releases of openai need a newer node.
PACKAGES = ("ollama@0.6.4", "openai@6.30.1")
INSTALL_S, CLIENTS_S = 90, 90
# What npm says when the connection to the registry fails, and not this test.
NO_WAY = ("ENOTFOUND", "EAI_AGAIN", "ECONNREFUSED", "ECONNRESET", "ETIMEDOUT", "ERR_SOCKET_TIMEOUT", "ENETUNREACH",
          "EHOSTUNREACH", "ENOTCACHED", "CERT", "E401", "E403", "E407", "E50")  # fmt: skip


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with both packages."""
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        pytest.skip("node or npm is not installed: the JavaScript clients cannot run")
    folder = tmp_path_factory.mktemp("npm")
    command = [npm, "install", "--prefix", folder, "--ignore-scripts", "--no-audit", "--no-fund", "--no-save"]
    command += ["--fetch-retries", "1", "--fetch-timeout", "20000", *PACKAGES]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_S, stdin=subprocess.DEVNULL)
    except subprocess.TimeoutExpired:
        pytest.skip(f"the npm registry gave no {' and '.join(PACKAGES)} within {INSTALL_S} s")
    if done.returncode and any(f"npm error code {code}" in done.stderr for code in NO_WAY):
        pytest.skip(f"the npm registry cannot be reached: {done.stderr.strip().splitlines()[0]}")
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def answers(packages: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Everything that both clients were answered."""
    home = str(tmp_path_factory.mktemp("home"))
    program = [*PROGRAM, "serve", "-m", "demo", "--port", "0"]
    with running_server(env={"Q3E_HOME": home, "HF_HUB_CACHE": home}, program=program) as running:
        running.wait_for("try: ", 60)
        script = TESTS / "node" / "clients.mjs"
        done = subprocess.run(
            ["node", script, packages, running.url],
            capture_output=True,
            encoding="utf-8",
            timeout=CLIENTS_S,
            env={name: value for name, value in os.environ.items() if "proxy" not in name.lower()},
        )
        assert done.returncode == 0, done.stderr + "\n".join(running.lines[-5:])
        if sys.platform != "win32":
            assert running.end() == 0
    return json.loads(done.stdout)


def close(found: Any, expected: np.ndarray) -> bool:
    """Rows of length 1 that point as expected. Beside other neighbours in a batch a text's vector has float noise."""
    vectors, expected = np.atleast_2d(np.float32(found)), np.atleast_2d(expected)
    assert vectors.shape == expected.shape
    assert np.abs(np.linalg.norm(vectors, axis=1) - 1).max() < 1e-5
    return bool(((vectors * expected).sum(axis=1) > 0.9999).all())


def test_ollama_embeds(answers: dict[str, Any]) -> None:
    texts, of = answers["texts"], answers["ollama"]
    expected = demo().embed_documents(texts)
    assert close(of["one"]["embeddings"], expected.vectors[:1])
    assert close(of["many"]["embeddings"], expected.vectors)
    assert of["many"]["model"] == "demo"
    assert of["many"]["prompt_eval_count"] == sum(expected.prompt_tokens)
    assert of["many"]["total_duration"] > 0
    assert close(of["older"]["embedding"], expected.vectors[0])
    assert close(of["dimensions"]["embeddings"], demo().embed_documents(texts, 64).vectors)
    assert close(of["query"]["embeddings"], demo().embed_query(texts[0]).vectors)
    assert of["cut"]["prompt_eval_count"] == 50
    together = [answer["embeddings"][0] for answer in of["together"]]
    assert close(together, demo().embed_documents([f"{texts[0]} {i}" for i in range(20)]).vectors)


def test_ollama_shows_what_is_here(answers: dict[str, Any]) -> None:
    of = answers["ollama"]
    assert "demo:latest" in [model["name"] for model in of["list"]["models"]]
    assert [model["name"] for model in of["ps"]["models"]] == ["demo:latest"]
    assert of["show"]["capabilities"] == ["embedding"]
    assert of["show"]["model_info"]["qwen3.embedding_length"] == 256
    assert of["version"]["version"]


def test_ollama_raises_its_own_errors(answers: dict[str, Any]) -> None:
    of = answers["ollama"]
    for name, status, message in (
        ("wrong_model", 404, 'model "nobody-knows" not found'),
        ("wrong_show", 404, "nobody-knows"),
        ("too_long", 400, "context length"),
        ("chat", 400, "only embeds"),
    ):
        assert (of[name]["type"], of[name]["status"]) == ("ResponseError", status), of[name]
        assert message in of[name]["message"], of[name]


def test_openai_embeds(answers: dict[str, Any]) -> None:
    texts, of = answers["texts"], answers["openai"]
    expected = demo().embed_documents(texts)

    def rows(answer: dict[str, Any]) -> list[list[float]]:
        assert [item["index"] for item in answer["data"]] == list(range(len(answer["data"])))
        return [item["embedding"] for item in answer["data"]]

    assert close(rows(of["one"]), expected.vectors[:1])
    assert close(rows(of["many"]), expected.vectors)
    assert close(rows(of["floats"]), expected.vectors)
    assert of["many"]["usage"]["prompt_tokens"] == sum(expected.prompt_tokens)
    (raw,) = rows(of["base64"])
    assert close(np.frombuffer(base64.b64decode(raw), "<f4"), expected.vectors[0])
    assert close(rows(of["dimensions"]), demo().embed_documents(texts, 64).vectors)
    assert close(rows(of["query"]), demo().embed_query(texts[0]).vectors)
    together = [rows(answer)[0] for answer in of["together"]]
    assert close(together, demo().embed_documents([f"{texts[0]} {i}" for i in range(20)]).vectors)


def test_openai_lists_models(answers: dict[str, Any]) -> None:
    of = answers["openai"]
    assert "demo:latest" in [model["id"] for model in of["models"]]
    assert (of["model"]["id"], of["model"]["object"]) == ("demo", "model")


def test_openai_raises_its_own_errors(answers: dict[str, Any]) -> None:
    of = answers["openai"]
    assert (of["wrong_model"]["type"], of["wrong_model"]["status"]) == ("NotFoundError", 404)
    assert (of["wrong_model"]["code"], "nobody-knows" in of["wrong_model"]["message"]) == ("model_not_found", True)
    for name, param in (("wrong_dimensions", "dimensions"), ("empty", "input")):
        found = of[name]
        assert (found["type"], found["status"], found["param"]) == ("BadRequestError", 400, param)
