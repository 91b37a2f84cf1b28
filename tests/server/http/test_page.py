"""The page on the wire: who gets it, what a browser may do with it, and that its file is what its sources give."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
import shutil
import subprocess

import httpx
import pytest
from paths import ROOT
from server_process import Running

pytest_plugins = ["serving"]

BROWSER = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}
TEXTS = ROOT / "page" / "src" / "texts"


@pytest.mark.parametrize("path", ["/ui", "/"])
def test_a_browser_gets_the_page(http: httpx.Client, path: str) -> None:
    answer = http.get(path, headers=BROWSER)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert answer.text.startswith("<!doctype html>")
    assert len(gzip.compress(answer.content)) < 400_000


@pytest.mark.parametrize("accept", ["*/*", "application/json", ""])
def test_other_clients_still_read_that_ollama_is_running(http: httpx.Client, accept: str) -> None:
    assert http.get("/", headers={"Accept": accept}).text == "Ollama is running"
    assert http.post("/", json={"inputs": "a", "model": "demo"}, headers=BROWSER).status_code == 200  # TEI's route


def test_the_policy_lets_a_browser_run_this_page_alone(http: httpx.Client) -> None:
    answer = http.get("/ui")
    policy = dict(part.strip().split(" ", 1) for part in answer.headers["content-security-policy"].split(";"))
    for element in ("script", "style"):
        (content,) = re.findall(rf"<{element}>(.*?)</{element}>", answer.text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert policy.pop(f"{element}-src") == f"'sha256-{digest}'"
    assert policy == {
        "default-src": "'none'",
        "connect-src": "'self'",
        "img-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    assert answer.headers["x-frame-options"] == "DENY"
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_the_page_names_no_other_server(http: httpx.Client) -> None:
    addresses = set(re.findall(r"https?://[\w.-]+", http.get("/ui").text))
    assert addresses == {"http://www.w3.org"}  # the names of SVG and XHTML, which are never asked


def test_with_a_key_the_page_comes_without_it_and_nothing_else_does(server: Running) -> None:
    assert server.ask("GET", "/ui")[0] == 200
    assert server.ask("GET", "/", headers=BROWSER)[0] == 200
    for path in ("/", "/api/indexes", "/api/tags", "/metrics"):
        assert server.ask("GET", path)[0] == 401, path
    assert server.ask("POST", "/api/passages", {"ids": ["a"]}, BROWSER)[0] == 401


@pytest.mark.parametrize("headers", [{"Host": "evil.example"}, {"Origin": "https://evil.example"}])
def test_a_page_of_another_name_gets_nothing(server: Running, headers: dict[str, str]) -> None:
    assert server.ask("GET", "/ui", headers=headers)[0] == 403


def test_both_languages_say_the_same_things() -> None:
    tables = [json.loads((TEXTS / f"{name}.json").read_text(encoding="utf-8")) for name in ("en", "zh")]
    assert list(tables[0]) == list(tables[1])
    for key, text in tables[0].items():
        named = [_named(each) for each in (text, tables[1][key])]
        assert named[0] == named[1], key


def test_every_text_is_there_and_is_used() -> None:
    texts = json.loads((TEXTS / "en.json").read_text(encoding="utf-8"))
    code = "".join(path.read_text(encoding="utf-8") for path in TEXTS.parent.glob("*.js"))
    named = set(re.findall(r"""\bt\(\s*"(\w+)\"""", code))
    assert named <= texts.keys()
    composed = re.findall(r"t\(`(\w+_)\$", code)
    in_code = set(re.findall(r'"(\w+)"', code))
    unused = {key for key in texts if key not in in_code and not key.startswith(tuple(composed))}
    assert unused == set()


def test_the_file_is_what_its_sources_give() -> None:
    if shutil.which("node") is None or not (ROOT / "page" / "node_modules").is_dir():
        pytest.skip("page/node_modules is not there: cd page && npm ci")
    subprocess.run(["node", "build.mjs", "--check"], cwd=ROOT / "page", check=True)


def _named(text: str | list[str]) -> set[str]:
    return set(re.findall(r"\{(\w+)\}", " ".join(text) if isinstance(text, list) else text))
