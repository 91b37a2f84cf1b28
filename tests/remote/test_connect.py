"""`connect()`: a running server's model has the calls of one that is loaded here, and gives the same vectors."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from command import demo
from fake_service import served

import q3e_local
from q3e_local.errors import OptionError, UnknownModelError
from q3e_local.remote.connection import ServerUnreachableError
from q3e_local.server.local.local_service import LocalService
from q3e_local.server.settings import ServerSettings

NOBODY = "127.0.0.1:9"  # discard: nobody listens
TEXTS = ["The neighbour fed the cat.", "会议改到周四下午三点。", "Prices fell in May."]


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with served(LocalService(ServerSettings(models=("demo",)))) as client:
        yield str(client.base_url).rstrip("/")


def test_documents_and_a_question_get_the_vectors_that_they_get_here(url):
    with q3e_local.connect(url, "demo") as far:
        documents = far.embed_documents(TEXTS, 64)
        question = far.embed_query("who fed the cat?", 64)
        assert (far.n_embd, far.n_ctx_max, far.digest) == (demo().n_embd, demo().n_ctx_max, demo().digest)
    assert documents.space == demo().embed_documents(TEXTS, 64).space
    np.testing.assert_allclose(documents.vectors, demo().embed_documents(TEXTS, 64).vectors, atol=1e-6)
    np.testing.assert_allclose(question.vectors, demo().embed_query("who fed the cat?", 64).vectors, atol=1e-6)
    assert not np.allclose(question.vectors, demo().embed_documents(["who fed the cat?"], 64).vectors, atol=0.01)


def test_nothing_is_asked_of_the_server_before_the_first_call():
    with q3e_local.connect(NOBODY, "demo") as far, pytest.raises(ServerUnreachableError, match="no server answers"):
        far.embed_documents(TEXTS)


def test_a_model_that_the_server_does_not_have_is_named(url):
    with q3e_local.connect(url, "nobody") as far, pytest.raises(UnknownModelError, match="no model 'nobody'"):
        far.embed_documents(TEXTS)


def test_what_is_no_address_is_refused_at_once():
    with pytest.raises(OptionError, match="one of http or https"):
        q3e_local.connect("ftp://somewhere", "demo")
