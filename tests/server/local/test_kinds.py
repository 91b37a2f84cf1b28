"""A server follows what the user said of a file: a reranker that does not say so itself ranks."""

from __future__ import annotations

import json

import pytest
import rerankers
from command import run

from q3e_local.embedding.engine import EngineConfig
from q3e_local.errors import WrongModelError
from q3e_local.server.dialects import names
from q3e_local.server.local.local_service import LocalService
from q3e_local.server.service import RankServiceRequest, ServiceRequest
from q3e_local.server.settings import ServerSettings


async def test_the_users_word_reaches_the_worker(world, tmp_path):
    path = rerankers.write_taught(tmp_path / "mine.gguf", "output")
    assert run("import", path, "--name", "mine", "--as", "reranker").exit_code == 0
    settings = ServerSettings()
    service = LocalService(settings, EngineConfig(n_threads=1))
    try:
        ranked = await service.rank(RankServiceRequest("mine", rerankers.QUESTION, rerankers.BEST_FIRST))
        assert list(ranked.logits) == pytest.approx(rerankers.TAUGHT, abs=0.01)
        with pytest.raises(WrongModelError, match="mine is a reranker"):
            await service.embed(ServiceRequest("mine", ("text",)))
    finally:
        await service.close()
    assert names.described(names.here("mine", settings)).kind == "reranker"


async def test_a_server_ranks_with_the_prompt_of_the_card(world, tmp_path):
    path = rerankers.write_taught(tmp_path / "ranker.gguf", type="q8_0")
    card = rerankers.card(path).replace(json.dumps(rerankers.WEB), '"Find the moon"')
    (world.home / "config" / "models" / "ranker.toml").write_text(card, encoding="utf-8")
    world.hub.add("Someone/Ranker", 40 * "a", "ranker-q8_0.gguf", path.read_bytes())
    assert run("pull", "ranker:1b").exit_code == 0
    service = LocalService(ServerSettings(), EngineConfig(n_threads=1))
    try:
        usual, own = [
            await service.rank(RankServiceRequest("ranker:1b", "q", ("a document",), instruction=instruction))
            for instruction in (None, "Find the moon")
        ]
    finally:
        await service.close()
    assert usual.logits == pytest.approx(own.logits, abs=1e-3)
    assert usual.prompt_tokens == own.prompt_tokens == (len(rerankers.ids("q", "a document", "Find the moon")),)
