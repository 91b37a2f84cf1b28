"""`connect_reranker()`: a running server's reranker has the calls of one that is loaded here, and the same scores."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import rerankers
from fake_service import FakeService, served

import q3e_local
from q3e_local import RankRequest
from q3e_local.errors import OptionError, TextError, UnknownModelError, WrongKindError
from q3e_local.remote.connection import ServerRefusedError, ServerUnreachableError
from q3e_local.reranking.rank_model import probability
from q3e_local.server.errors import QueueFullError
from q3e_local.server.local.local_service import LocalService
from q3e_local.server.settings import ServerSettings

NOBODY = "127.0.0.1:9"  # discard: nobody listens


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server whose reranker learned the logits of three documents by heart."""
    path = rerankers.write_taught(tmp_path_factory.mktemp("models") / "taught-reranker.gguf")
    with served(LocalService(ServerSettings(models=(str(path),)))) as client:
        yield str(client.base_url).rstrip("/")


@pytest.fixture
def service() -> FakeService:
    """A document's logit is the number of times that it has the query, less 1; its tokens are bytes, 100 at most."""
    return FakeService()


@pytest.fixture
def url(service: FakeService) -> Iterator[str]:
    with served(service, max_items=3) as client:
        yield str(client.base_url).rstrip("/")


def test_documents_get_the_logits_and_the_order_that_they_get_here(taught):
    with q3e_local.connect_reranker(taught, "taught-reranker") as far:
        ranked = far.rank(rerankers.QUESTION, rerankers.BEST_FIRST[::-1])
        scores = far.score([(rerankers.QUESTION, document) for document in rerankers.BEST_FIRST])
        assert (far.model, [one.index for one in ranked]) == ("taught-reranker", [2, 1, 0])
    assert [one.logit for one in ranked] == pytest.approx(rerankers.TAUGHT, abs=0.05)
    assert [one.score for one in ranked] == [probability(one.logit) for one in ranked]
    assert scores == pytest.approx([one.score for one in ranked], abs=1e-3)
    n_tokens = [len(rerankers.ids(rerankers.QUESTION, document)) for document in rerankers.BEST_FIRST]
    assert [(one.tokens, one.truncated) for one in ranked] == [(n, False) for n in n_tokens]


def test_a_path_means_the_reranker_that_the_server_has_under_the_files_name(taught):
    with q3e_local.connect_reranker(taught, "/elsewhere/taught-reranker.gguf") as far:
        assert far.rank(rerankers.QUESTION, rerankers.BEST_FIRST, top_n=1)[0].index == 0


def test_more_documents_than_a_request_takes_come_back_in_order(url, service):
    documents = ["a" * (place % 5) for place in range(10)]
    counts: list[tuple[int, int]] = []
    with q3e_local.connect_reranker(url, "judge") as far:
        found = list(far.stream(RankRequest("a", iter(documents)), lambda *done: counts.append(done)))
    assert [one.index for one in found] == list(range(10))
    assert [one.logit for one in found] == [place % 5 - 1 for place in range(10)]
    assert max(len(request.documents) for request in service.requests) == 3
    assert [n_done for n_done, _ in counts] == [3, 6, 9, 10]
    assert counts[-1][1] == sum(one.tokens for one in found) == 10 * 2 + 20


def test_options_reach_the_server(url, service):
    with q3e_local.connect_reranker(url, "judge") as far:
        (one,) = far.stream(RankRequest("q", ["x" * 90], instruction="Find it", max_tokens=50, max_document_tokens=9))
        assert (one.truncated, one.tokens) == (True, 2 + 9)
        far.rank("q", ["x"], task="code")
    _, first, _, second = service.requests
    assert (first.instruction, first.max_tokens, first.max_document_tokens) == ("Find it", 50, 9)
    assert (second.task, second.instruction, second.truncate) == ("code", None, True)


def test_a_document_that_fails_is_named_by_its_place_and_the_others_are_read(url):
    documents = ["a", "x" * 200, "\ud800", "aa", "y" * 300]
    with q3e_local.connect_reranker(url, "judge") as far:
        found = list(far.stream(RankRequest("a", documents, truncate=False)))
        assert [(one.index, isinstance(one, TextError)) for one in found] == [
            (0, False), (1, True), (2, True), (3, False), (4, True),
        ]  # fmt: skip
        assert str(found[1]) == "text 1: has 200 tokens, the limit is 98; truncate it"
        with pytest.raises(TextError, match="text 1: has 200 tokens"):
            far.rank("a", documents, truncate=False)


def test_what_the_model_cannot_do_is_told_before_a_document_is_read(url):
    def unread() -> Iterator[str]:
        raise AssertionError("a document was read")
        yield ""

    with q3e_local.connect_reranker(url, "judge") as far:
        for request, said in [
            (RankRequest(" ", unread()), "query is empty"),
            (RankRequest("q" * 200, unread()), "the query has 201 tokens, the limit is 100"),
            (RankRequest("q", "one text"), "documents must be a list of texts"),
        ]:
            with pytest.raises(OptionError, match=said):
                far.stream(request)
        with pytest.raises(OptionError, match="top_n must be 1 or more, got 0"):
            far.rank("q", unread(), top_n=0)


def test_models_that_are_not_there_or_rank_nothing_are_named(taught):
    with (
        q3e_local.connect_reranker(taught, "nope") as far,
        pytest.raises(UnknownModelError, match=r"the server: .*nope"),
    ):
        far.rank("q", ["a"])
    with q3e_local.connect_reranker(taught, "demo") as far, pytest.raises(WrongKindError, match="ranks nothing"):
        far.rank("q", ["a"])


def test_nothing_is_asked_of_the_server_before_the_first_call():
    far = q3e_local.connect_reranker(NOBODY)
    with far, pytest.raises(ServerUnreachableError, match="no server answers"):
        far.rank("q", ["a"])


def test_a_busy_server_is_asked_again(url, service, monkeypatch):
    rank, refusals = service.rank, [QueueFullError("too much waits", 1)]

    async def busy(request):
        if refusals:
            raise refusals.pop()
        return await rank(request)

    monkeypatch.setattr(service, "rank", busy)
    with q3e_local.connect_reranker(url, "judge") as far:
        assert far.rank("a", ["aa"])[0].logit == 1


def test_a_failure_of_the_server_is_an_error_of_ours(url, service):
    service.fail = RuntimeError("broken")
    with q3e_local.connect_reranker(url, "judge") as far, pytest.raises(ServerRefusedError, match="internal error"):
        far.rank("a", ["aa"])
