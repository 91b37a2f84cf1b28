"""Models that integrations name: loaded once for all of a program, and freed when it ends."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from alike import assert_alike
from command import expected
from fake_service import served

import q3e_local
from q3e_local import by_name
from q3e_local.errors import ModelNotHereError, OptionError
from q3e_local.server.local.local_service import LocalService
from q3e_local.server.settings import ServerSettings


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    by_name.close()  # what tests of other files left open in this process
    yield
    by_name.close()


def test_all_that_name_a_model_have_the_same_also_from_several_threads(monkeypatch):
    loaded = []
    load = by_name.load
    monkeypatch.setattr(by_name, "load", lambda *names, **options: loaded.append(names) or load(*names, **options))
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: by_name.embedder("demo"), range(16)))
    assert len({id(each) for each in found}) == len(loaded) == 1
    assert by_name.embedder("demo", cache=True) is not found[0]
    assert by_name.reranker("demo-reranker") is by_name.reranker("demo-reranker")


def test_a_server_is_a_model_of_its_own():
    with served(LocalService(ServerSettings(models=("demo",)))) as client:
        far = by_name.embedder("demo", str(client.base_url))
        assert far is not by_name.embedder("demo")
        assert far is by_name.embedder("demo", str(client.base_url))
        assert_alike(far.embed_query("a").vectors, expected(["a"], kind="query").vectors)
    with pytest.raises(OptionError, match="cache is for a model in this process; the server has its own"):
        by_name.reranker("demo-reranker", "localhost", True)


def test_what_cannot_be_loaded_is_tried_again():
    for _ in range(2):
        with pytest.raises(ModelNotHereError):
            by_name.embedder("qwen3-embedding:8b")


def test_a_name_that_was_closed_is_loaded_again():
    first = by_name.embedder("demo")
    by_name.close()
    with pytest.raises(q3e_local.Q3EError, match="the engine is closed"):
        first.embed_query("a")
    assert by_name.embedder("demo").embed_query("a").vectors.shape == (1, 256)


def test_the_end_of_the_program_frees_what_is_left():
    script = (
        "import atexit\n"
        "from q3e_local import by_name\n"
        "from q3e_local.llama.binding import Weights\n"
        "free = Weights.free\n"
        "Weights.free = lambda self: (print('freed', self.handle is not None), free(self))\n"
        "by_name.embedder('demo').embed_query('a')\n"
        "by_name.reranker('demo-reranker').rank('a', ['a'])\n"
        "atexit.register(print, 'ending')\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    lines = [
        line for line in done.stdout.splitlines() if line != "freed False"
    ]  # a second time, as they are collected
    assert lines == ["ending", "freed True", "freed True"]
