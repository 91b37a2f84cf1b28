"""A server with a cache computes only what the cache does not have, and answers each input at its place."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest
from command import embed
from fake import seen
from workers import FakeWorker

import q3e_local
from q3e_local.embedding.engine import EngineConfig
from q3e_local.errors import BadVectorError, InvalidTextError, OptionError, TextError, TextTooLongError
from q3e_local.files import cache_folder
from q3e_local.server.local.local_service import LocalService
from q3e_local.server.service import ServiceRequest, ServiceResult
from q3e_local.server.settings import ServerSettings, settings

TEXTS = ["three", "a", "a longer one", "", "a" * 30, "zwölf", "e\u0301te\u0301"]


def serve(*requests: ServiceRequest, make: Any = FakeWorker, cache: str = "on") -> tuple[list[Any], dict[str, float]]:
    """The answers of a service to requests that follow each other, and its counters in the end."""

    async def scenario() -> tuple[list[Any], dict[str, float]]:
        service = LocalService(ServerSettings(cache=cache), EngineConfig(n_threads=1), make)
        try:
            answers: list[Any] = []
            for request in requests:
                try:
                    answers.append(await service.embed(request))
                except TextError as error:
                    answers.append(error)
                # The service keeps vectors behind its answers, and nothing outside tells when it has.
                service._pipeline._keeping.submit(lambda: None).result()
            return answers, service.counters()
        finally:
            await service.close()

    return asyncio.run(asyncio.wait_for(scenario(), 60))


def request(*inputs: Any, **options: Any) -> ServiceRequest:
    return ServiceRequest("demo", inputs, **options)


def same(one: ServiceResult, other: ServiceResult) -> bool:
    facts = [(result.prompt_tokens, result.truncated, result.space) for result in (one, other)]
    return np.array_equal(one.vectors, other.vectors) and facts[0] == facts[1]


def test_a_server_computes_only_what_is_not_kept():
    (plain,), _ = serve(request(*TEXTS), cache="off")
    (first, second, third), counts = serve(request(*TEXTS[:3]), request(*TEXTS), request(*TEXTS, dim=40))
    assert same(second, plain)
    assert np.array_equal(first.vectors, plain.vectors[:3])
    assert counts["n_cached_texts"] == 3 + 7
    assert counts["n_computed_texts"] == 7
    ((again,), counts) = serve(request(*TEXTS, dim=40))
    assert same(again, third)
    assert (counts["n_cached_texts"], counts["n_computed_texts"]) == (7, 0)
    assert same(third, serve(request(*TEXTS, dim=40), cache="off")[0][0])


class Coarse(FakeWorker):
    """A worker that had memory for coarse keys and values only, for texts of more than 5 tokens."""

    n_keepable = 5


def test_a_server_keeps_no_vector_that_was_computed_coarsely():
    (first, second), counts = serve(request("one", "a longer one"), request("one", "a longer one"), make=Coarse)
    assert same(first, second)
    assert (counts["n_cached_texts"], counts["n_computed_texts"]) == (1, 3)


def test_a_server_without_a_cache_keeps_nothing():
    _, counts = serve(request("one"), request("one"), cache="off")
    assert (counts["n_cached_texts"], counts["n_computed_texts"]) == (0, 2)
    assert not cache_folder().exists()


def test_inputs_of_ids_are_computed_each_time_and_stand_where_they_stood():
    given = request("one", (65, 66), "two", (67,))
    (first, second), counts = serve(given, given)
    assert same(first, second)
    assert [seen(row) for row in second.vectors] == [(256, 4), (256, 3), (256, 4), (256, 2)]
    assert (counts["n_cached_texts"], counts["n_computed_texts"]) == (2, 6)


def test_cutting_and_refusing_in_a_server():
    (cut, again, refused, whole), counts = serve(
        request("a", "x" * 20, max_tokens=9), request("x" * 20, "a", max_tokens=9),
        request("a", "x" * 20, max_tokens=9, truncate=False), request("x" * 20),
    )  # fmt: skip
    assert (cut.truncated, again.truncated) == ((False, True), (True, False))
    assert np.array_equal(cut.vectors, again.vectors[::-1])
    assert (type(refused), refused.index) == (TextTooLongError, 1)
    assert whole.prompt_tokens == (21,)
    assert counts["n_cached_texts"] == 2 + 1


def test_errors_name_the_place_of_the_input_among_those_that_are_kept():
    (_, invalid, foreign), _ = serve(
        request("one", "two"), request("one", "\ud800", "two"), request("one", "two", (999,))
    )
    assert (type(invalid), invalid.index, foreign.index) == (InvalidTextError, 1, 2)


class Late(FakeWorker):
    """A worker whose vectors begin with 40 zeros, except for texts that begin with `a`."""

    def decode(self, sequences, n_prefix=None):
        vectors = super().decode(sequences, n_prefix)
        return np.stack(
            [row if ids[0] == ord("a") else np.roll(row, 40) for row, ids in zip(vectors, sequences, strict=True)]
        )


@pytest.mark.parametrize("cache", ["on", "off"])
def test_a_vector_that_is_cut_to_zeros_is_an_error_with_its_place_the_first_time_too(cache):
    given = request("a", "ab", "text", "a text", "texts", dim=32)
    (_, *answers, whole), _ = serve(request("a"), given, given, request("text"), make=Late, cache=cache)
    said = "text 2: the first 32 numbers of its vector are all 0; raise dim"
    assert [(type(error), str(error)) for error in answers] == [(BadVectorError, said)] * 2
    assert np.linalg.norm(whole.vectors) == pytest.approx(1)


def test_the_library_the_command_and_the_server_share_one_cache():
    texts = ["What did we decide?", "预算超支百分之六。"]
    with q3e_local.load("demo", n_threads=1, cache=True) as embedder:
        result = embedder.embed_documents(texts)
    assert "2 from the cache" in embed("--text", texts[0], "--text", texts[1]).stderr
    (answer,), counts = serve(request(*texts), make=None)
    assert np.array_equal(answer.vectors, result.vectors)
    assert (counts["n_cached_texts"], counts["n_computed_texts"]) == (2, 0)


@pytest.mark.parametrize(
    ("flag", "variable", "cache"), [(None, None, "on"), (False, "/a/b", "off"), (True, "/a/b", "/a/b")]
)
def test_settings_of_a_server(flag, variable, cache):
    assert settings({"cache": flag}, {} if variable is None else {"Q3E_CACHE": variable}).cache == cache


def test_settings_of_a_server_that_mean_nothing():
    for environ in ({"Q3E_CACHE": "http://here"}, {"Q3E_CACHE_SIZE": "many"}):
        with pytest.raises(OptionError):
            settings({}, environ)
    assert "secret" not in repr(settings({}, {"Q3E_CACHE": "redis://:secret@here/0"}))
