"""Model names on the wire: Ollama's grammar, and the names of one model."""

from __future__ import annotations

import httpx
import pytest
from fake_service import N_EMBD

from q3e_local.errors import OptionError
from q3e_local.server.dialects.names import checked, short_form

pytest_plugins = ["serving"]


@pytest.mark.parametrize(
    ("name", "short"),
    [
        ("demo", "demo:latest"),
        ("demo:latest", "demo:latest"),
        (" demo:LATEST ", "demo:LATEST"),
        ("hf.co/Qwen/Qwen3-Embedding-0.6B-GGUF:Q8_0",) * 2,
        ("registry.ollama.ai/library/qwen3-embedding:4b",) * 2,
        ("host:5000/ns/model", "host:5000/ns/model:latest"),
        ("m" * 80, "m" * 80 + ":latest"),
    ],
)
def test_names(name: str, short: str) -> None:
    # ollama types/model/name_test.go
    assert short_form(checked(name)) == short


@pytest.mark.parametrize("name", ["demo:latest", "DEMO", "Demo:Latest", "demo:q8_0", "demo-query:latest"])
def test_names_of_one_model(http: httpx.Client, name: str) -> None:
    # ollama integration: names differing only in case refer to one model
    assert http.post("/api/show", json={"model": name}).json()["model_info"]["qwen3.embedding_length"] == N_EMBD


NO_NAMES = ["", "m" * 81, "a:", ":a", "/a", "a/", "a//b", "a b", "a\0b", "..", "../a", "é", "a:b:c", "~x", "C:\\x"]


@pytest.mark.parametrize("name", NO_NAMES)
def test_what_is_no_name(name: str) -> None:
    # ollama types/model/name_test.go
    with pytest.raises(OptionError, match="invalid model name"):
        checked(name)
