"""Texts that were computed before: the same vectors to the last bit without tokenizing or decoding, everywhere."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import apsw
import numpy as np
import pytest
from command import embed, expected, run, write
from fake import FakeEngine, seen
from hypothesis import given
from hypothesis import strategies as st
from workers import FakeWorker

import q3e_local
from q3e_local.cache import Entry, Key
from q3e_local.cache.choose import open_cache
from q3e_local.cache.sqlite import SqliteCache
from q3e_local.embedding.embedder import Embedder
from q3e_local.embedding.engine import EngineConfig
from q3e_local.embedding.prompts import Prompts
from q3e_local.embedding.request import EmbedRequest
from q3e_local.errors import BadVectorError, InvalidTextError, OptionError, TextError, TextTooLongError
from q3e_local.files import cache_folder
from q3e_local.server.local.local_service import LocalService
from q3e_local.server.service import ServiceRequest, ServiceResult
from q3e_local.server.settings import ServerSettings, settings

TEXTS = ["three", "a", "a longer one", "", "a" * 30, "zwölf", "e\u0301te\u0301"]


class Memory:
    """A cache in a dict that remembers what it was asked."""

    where = "memory"

    def __init__(self) -> None:
        self.entries: dict[Key, Entry] = {}
        self.questions: list[int] = []
        self.closed = False

    def get_many(self, keys: list[Key]) -> list[Entry | None]:
        self.questions.append(len(keys))
        return [self.entries.get(key) for key in keys]

    def put_many(self, items: list[tuple[Key, Entry]]) -> None:
        self.entries |= {key: Entry(one.pooled.copy(), one.prompt_tokens, one.truncated) for key, one in items}

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def memory() -> Memory:
    return Memory()


@pytest.fixture
def make(memory: Memory) -> Callable[..., Embedder]:
    def made(prompts: Prompts = Prompts(), **engine: Any) -> Embedder:  # noqa: B008
        return Embedder(FakeEngine(**engine), "fake", prompts, cache=memory)

    return made


def rows(vectors: np.ndarray) -> list[bytes]:
    return [row.tobytes() for row in vectors]


@pytest.mark.parametrize("dim", [None, 64, 33, 32])
def test_the_second_time_nothing_is_tokenized_or_decoded_and_all_is_the_same(make, dim):
    plain = Embedder(FakeEngine(), "fake").embed_documents(TEXTS, dim)
    first = make().embed_documents(TEXTS, dim)
    embedder = make()
    second = embedder.embed_documents(TEXTS, dim)
    assert embedder.engine.texts == embedder.engine.batches == []
    assert rows(plain.vectors) == rows(first.vectors) == rows(second.vectors)
    assert plain.prompt_tokens == first.prompt_tokens == second.prompt_tokens
    assert (plain.space, plain.truncated) == (second.space, second.truncated)
    assert set(plain.cached) == set(first.cached) == {False}
    assert set(second.cached) == {True}
    second.vectors[:] = 0  # they are the caller's
    assert rows(make().embed_documents(TEXTS, dim).vectors) == rows(plain.vectors)


@pytest.mark.parametrize(("first", "second"), [(64, 32), (32, 64), (40, 50)])
def test_any_dim_is_served_from_any_other(make, first, second):
    make().embed_documents(TEXTS, first)
    embedder = make()
    result = embedder.embed_documents(TEXTS, second)
    assert embedder.engine.n_decodes == 0
    assert rows(result.vectors) == rows(Embedder(FakeEngine(), "fake").embed_documents(TEXTS, second).vectors)


def test_only_what_is_new_is_computed_and_the_order_is_the_callers(make):
    make().embed_documents(TEXTS[::2])
    embedder = make()
    result = embedder.embed_documents(TEXTS)
    assert result.cached == tuple(place % 2 == 0 for place in range(len(TEXTS)))
    assert embedder.engine.texts == ["a", "", "zwölf"]
    assert rows(result.vectors) == rows(Embedder(FakeEngine(), "fake").embed_documents(TEXTS).vectors)


@given(
    before=st.lists(st.integers(0, 40), max_size=30),
    lengths=st.lists(st.integers(0, 40), max_size=60),
    limit=st.integers(1, 45),
    truncate=st.booleans(),
)
def test_any_mix_gives_what_it_gives_without_a_cache(before, lengths, limit, truncate):
    memory = Memory()

    def outcome(embedder: Embedder, lengths: list[int], limit: int, truncate: bool) -> list[Any]:
        request = EmbedRequest(["x" * n for n in lengths], truncate=truncate, max_tokens=limit)
        return [
            str(one) if isinstance(one, TextError) else (one.vector.tobytes(), one.prompt_tokens, one.truncated)
            for one in embedder.stream(request)
        ]

    for of_run, at, cut in ((before, 20, True), (lengths, limit, truncate), (lengths, limit, not truncate)):
        plain = outcome(Embedder(FakeEngine(), "fake"), of_run, at, cut)
        assert outcome(Embedder(FakeEngine(), "fake", cache=memory), of_run, at, cut) == plain
        again = Embedder(FakeEngine(), "fake", cache=memory)
        assert outcome(again, of_run, at, cut) == plain
        assert again.engine.n_decodes == 0


def test_queries_and_documents_and_instructions_are_kept_apart(make):
    embedder = make()
    embedder.embed_documents(["text"])
    for request in ({}, {"task": "code"}, {"instruction": "find it"}):
        assert embedder.embed_query("text", **request).cached == (False,)
        assert embedder.embed_query("text", **request).cached == (True,)
    # The same ids, and yet another space.
    prompts = Prompts(query="a {text}")
    assert make(prompts).embed_query("b").cached == (False,)
    assert make(prompts).embed_documents(["a b"]).cached == (False,)


def test_another_model_has_another_vector(make, monkeypatch):
    make().embed_documents(["text"])
    monkeypatch.setattr(FakeEngine, "digest", "fb" * 32)
    assert make().embed_documents(["text"]).cached == (False,)


def test_what_is_written_in_two_ways_is_one_text(make):
    make().embed_documents(["e\u0301"])
    assert make().embed_documents(["é"]).cached == (True,)


def test_a_text_that_is_too_long_is_refused_although_the_cut_one_is_kept(make):
    assert make().embed_documents(["x" * 20], truncate=True, max_tokens=9).truncated == (True,)
    with pytest.raises(TextTooLongError, match="text 0: has 21 tokens, the limit is 9"):
        make().embed_documents(["x" * 20], max_tokens=9)
    assert make().embed_documents(["x" * 20], truncate=True, max_tokens=9).cached == (True,)
    assert make().embed_documents(["x" * 20], truncate=True, max_tokens=10).cached == (False,)
    whole = make().embed_documents(["x" * 20])
    assert (whole.cached, whole.truncated, seen(whole.vectors[0])) == ((False,), (False,), (256, 21))


def test_errors_name_their_places_among_texts_that_are_kept(make):
    texts = ["one", "two", "three", "four", "five"]
    make().embed_documents(texts)
    given = ["one", "\ud800", "two", "bad text", "three", "x" * 50, "four", 7, "five"]
    embedder = make(bad="bad")
    request = EmbedRequest(given, max_tokens=30)
    results = list(embedder.stream(request))
    failed = {place: type(one) for place, one in enumerate(results) if isinstance(one, TextError)}
    assert failed == {1: InvalidTextError, 3: BadVectorError, 5: TextTooLongError, 7: InvalidTextError}
    assert all(one.index == place for place, one in enumerate(results) if isinstance(one, TextError))
    assert [one.cached for one in results if not isinstance(one, TextError)] == [True] * 5
    assert [one.cached for one in make().stream(EmbedRequest(["bad text"]))] == [False], "a failure is not kept"


def test_a_vector_that_is_cut_to_zeros_is_an_error_each_time(make, memory):
    engine = FakeEngine()
    make().embed_documents(["text"])
    ((key, kept),) = memory.entries.items()
    memory.entries[key] = Entry(np.roll(kept.pooled, 40), kept.prompt_tokens)
    embedder = Embedder(engine, "fake", cache=memory)
    with pytest.raises(BadVectorError, match="text 1: the first 32 numbers of its vector are all 0; raise dim"):
        embedder.embed_documents(["other", "text"], 32)
    assert embedder.embed_documents(["other", "text"]).cached == (True, True)


def test_a_text_that_comes_twice_is_computed_once_and_kept_once(make, memory):
    embedder = make()
    result = embedder.embed_documents(["same"] * 5 + ["other"])
    assert sum(len(batch) for batch in embedder.engine.batches) == len(memory.entries) == 2
    assert result.cached == (False,) * 6
    assert make().embed_documents(["same"] * 5).cached == (True,) * 5


def test_a_thousand_kept_texts_are_a_few_questions(make, memory):
    texts = [f"text {number}" for number in range(3000)]
    make().embed_documents(texts)
    del memory.questions[:]
    assert all(make().embed_documents(texts).cached)
    assert sum(memory.questions) == 3000
    assert len(memory.questions) <= 10


def test_reading_ahead_is_bounded(make):
    taken = 0

    def endless() -> Iterator[str]:
        nonlocal taken
        while True:
            taken += 1
            yield f"{taken} " * 40

    for _ in range(2):
        taken = 0
        stream = make().stream(EmbedRequest(endless()))
        next(stream)
        assert taken < 20
        stream.close()


def test_progress_counts_kept_texts_and_comes_to_all(make):
    told: list[tuple[int, int]] = []
    make().embed_documents(TEXTS[:3])
    result = make().embed_documents(TEXTS, progress=lambda *done: told.append(done))
    assert told[-1] == (len(TEXTS), sum(result.prompt_tokens))


def test_closing_closes_the_cache(make, memory):
    with make():
        pass
    assert memory.closed


# The library


def test_load_with_a_cache(tmp_path):
    text, path = "What did we decide?", tmp_path / "mine.sqlite"
    with q3e_local.load("demo", n_threads=1) as embedder:
        plain = embedder.embed_query(text, 64)
    assert not cache_folder().exists()
    for where, is_there in ((path, path), (True, cache_folder() / "vectors.sqlite")):
        for was_there in (False, True):
            with q3e_local.load("demo", n_threads=1, cache=where) as embedder:
                result = embedder.embed_query(text, 64)
            assert result.cached == (was_there,)
            assert rows(result.vectors) == rows(plain.vectors)
        assert is_there.exists()
    with q3e_local.load("demo", n_threads=1, cache="off") as embedder:
        assert embedder.embed_query(text, 64).cached == (False,)


def test_load_refuses_what_is_no_cache_before_it_loads():
    with pytest.raises(OptionError, match="redis://"):
        q3e_local.load("demo", cache="http://127.0.0.1")


# The command line


def report(*arguments: object) -> str:
    result = embed(*arguments)
    assert result.exit_code == 0, result.output
    return result.stderr.splitlines()[0]


def test_embed_keeps_vectors_and_says_how_many_were(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path, {"a.txt": "one\ntwo\nthree\n", "b.txt": "two\nthree\nfour\nfive\n"})
    assert re.fullmatch(r"3 texts, 6 tokens in [\d.]+ s: [\d,]+ tokens/s", report("--lines", "a.txt"))
    line = report("--lines", "b.txt", "-o", "b.npy")
    assert re.fullmatch(r"4 texts \(2 from the cache\), 8 tokens in [\d.]+ s, the others at [\d,]+ tokens/s", line)
    assert rows(np.load("b.npy")) == rows(expected(["two", "three", "four", "five"]).vectors)
    line = report("--lines", "b.txt", "-d", 64, "-o", "b64.npy")
    assert re.fullmatch(r"4 texts \(4 from the cache\), 8 tokens in [\d.]+ s", line)
    assert rows(np.load("b64.npy")) == rows(expected(["two", "three", "four", "five"], dim=64).vectors)
    assert "cache" not in report("--lines", "b.txt", "--no-cache")
    assert run("cache", "stats").stdout.splitlines()[0].split(": ")[1].startswith("5 vectors")


@pytest.mark.parametrize(
    ("variable", "flag", "is_kept"),
    [(None, "--no-cache", False), ("off", None, False), ("off", "--cache", True), ("mine.sqlite", None, True),
     ("mine.sqlite", "--no-cache", False)],
)  # fmt: skip
def test_the_flag_and_the_variable(tmp_path, monkeypatch, variable, flag, is_kept):
    monkeypatch.chdir(tmp_path)
    if variable is not None:
        monkeypatch.setenv("Q3E_CACHE", variable)
    flags = [] if flag is None else [flag]
    lines = [report("--text", "one", *flags) for _ in range(2)]
    assert ["1 from the cache" in line for line in lines] == [False, is_kept]
    assert Path("mine.sqlite").exists() == (is_kept and variable == "mine.sqlite")
    assert (cache_folder() / "vectors.sqlite").exists() == (is_kept and variable != "mine.sqlite")


def test_a_server_has_its_own_cache():
    for flag in ("--cache", "--no-cache"):
        result = embed("--text", "one", "--server", "http://127.0.0.1:9", flag)
        assert result.exit_code == 2
        assert "the server has its own" in result.stderr


def test_a_cache_that_means_nothing_is_wrong_usage(monkeypatch):
    monkeypatch.setenv("Q3E_CACHE", "http://here")
    assert embed("--text", "one").exit_code == 2


def test_a_damaged_cache_costs_a_warning_and_no_vector(monkeypatch, tmp_path, caplog):
    monkeypatch.chdir(tmp_path)
    wanted = rows(expected(["one", "two"]).vectors)
    folder = cache_folder()
    folder.mkdir(parents=True)
    (folder / "vectors.sqlite").write_text("no database")
    for n_kept in (0, 2):
        result = embed("--text", "one", "--text", "two", "-o", "out.npy", "--force")
        assert result.exit_code == 0
        assert rows(np.load("out.npy")) == wanted
        assert ("2 from the cache" in result.stderr) == (n_kept == 2)
    assert caplog.text.count("is damaged") == 1
    connection = apsw.Connection(str(folder / "vectors.sqlite"))
    connection.execute("UPDATE entry SET record = zeroblob(length(record))")
    connection.close()
    assert embed("--text", "one", "--text", "two", "-o", "out.npy", "--force").exit_code == 0
    assert rows(np.load("out.npy")) == wanted


def test_a_cache_that_cannot_be_made_is_told_once_and_the_vectors_come(monkeypatch, tmp_path, caplog):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("Q3E_CACHE", "file/v.sqlite")
    Path("file").touch()
    result = embed("--text", "one", "-o", "out.npy")
    assert result.exit_code == 0
    assert caplog.text.count("going on without the cache") == 1
    assert rows(np.load("out.npy")) == rows(expected(["one"]).vectors)


# The server


def serve(*requests: ServiceRequest, make: Any = FakeWorker, cache: str = "on") -> tuple[list[Any], dict[str, float]]:
    """What a service answers, request by request, and what it counted."""

    async def scenario() -> tuple[list[Any], dict[str, float]]:
        service = LocalService(ServerSettings(cache=cache), EngineConfig(n_threads=1), make)
        try:
            answers: list[Any] = []
            for request in requests:
                try:
                    answers.append(await service.embed(request))
                except TextError as error:
                    answers.append(error)
                service._keeping.submit(lambda: None).result()  # what was computed is kept
            return answers, service.counters()
        finally:
            await service.close()

    return asyncio.run(asyncio.wait_for(scenario(), 60))


def request(*inputs: Any, **options: Any) -> ServiceRequest:
    return ServiceRequest("demo", inputs, **options)


def same(one: ServiceResult, other: ServiceResult) -> bool:
    return (rows(one.vectors), one.prompt_tokens, one.truncated, one.space) == (
        rows(other.vectors), other.prompt_tokens, other.truncated, other.space,
    )  # fmt: skip


def test_a_server_computes_only_what_is_not_kept():
    (plain,), _ = serve(request(*TEXTS), cache="off")
    (first, second, third), counts = serve(request(*TEXTS[:3]), request(*TEXTS), request(*TEXTS, dim=40))
    assert same(second, plain)
    assert rows(first.vectors) == rows(plain.vectors[:3])
    assert counts["n_cached_texts"] == 3 + 7
    assert counts["n_computed_texts"] == 7
    ((again,), counts) = serve(request(*TEXTS, dim=40))
    assert same(again, third)
    assert (counts["n_cached_texts"], counts["n_computed_texts"]) == (7, 0)
    assert same(third, serve(request(*TEXTS, dim=40), cache="off")[0][0])


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
    assert rows(cut.vectors) == rows(again.vectors[::-1])
    assert isinstance(refused, TextTooLongError)
    assert refused.index == 1
    assert whole.prompt_tokens == (21,)
    assert counts["n_cached_texts"] == 2 + 1


def test_errors_name_the_place_of_the_input_among_those_that_are_kept():
    (_, invalid, foreign), _ = serve(
        request("one", "two"), request("one", "\ud800", "two"), request("one", "two", (999,))
    )
    assert isinstance(invalid, InvalidTextError)
    assert invalid.index == 1
    assert foreign.index == 2


class Late(FakeWorker):
    """Its vectors begin with 40 zeros, but for texts that begin with `a`."""

    def decode(self, sequences, n_prefix=None):
        vectors = super().decode(sequences, n_prefix)
        return np.stack(
            [row if ids[0] == ord("a") else np.roll(row, 40) for row, ids in zip(vectors, sequences, strict=True)]
        )


@pytest.mark.parametrize("cache", ["on", "off"])
def test_a_vector_that_is_cut_to_zeros_is_an_error_with_its_place_the_first_time_too(cache):
    given = request("a", "ab", "text", "a text", "texts", dim=32)
    (_, *answers, whole), _ = serve(request("a"), given, given, request("text"), make=Late, cache=cache)
    for error in answers:
        assert isinstance(error, BadVectorError)
        assert str(error) == "text 2: the first 32 numbers of its vector are all 0; raise dim"
    assert np.linalg.norm(whole.vectors) == pytest.approx(1)


def test_the_library_the_command_and_the_server_share_one_cache():
    texts = ["What did we decide?", "预算超支百分之六。"]
    with q3e_local.load("demo", n_threads=1, cache=True) as embedder:
        result = embedder.embed_documents(texts)
    assert "2 from the cache" in report("--text", texts[0], "--text", texts[1])
    (answer,), counts = serve(request(*texts), make=None)
    assert rows(answer.vectors) == rows(result.vectors)
    assert (counts["n_cached_texts"], counts["n_computed_texts"]) == (2, 0)


@pytest.mark.parametrize(
    ("flag", "variable", "expected_"),
    [(None, None, "on"), (None, "off", "off"), (False, None, "off"), (True, "off", "on"), (None, "/a/b", "/a/b")],
)
def test_settings_of_a_server(flag, variable, expected_):
    assert settings({"cache": flag}, {} if variable is None else {"Q3E_CACHE": variable}).cache == expected_


def test_settings_of_a_server_that_mean_nothing():
    for environ in ({"Q3E_CACHE": "http://here"}, {"Q3E_CACHE_SIZE": "many"}):
        with pytest.raises(OptionError):
            settings({}, environ)
    assert "secret" not in repr(settings({}, {"Q3E_CACHE": "redis://:secret@here/0"}))


def test_what_lies_in_the_cache_is_no_text(tmp_path):
    path = tmp_path / "v.sqlite"
    cache = open_cache(path)
    assert isinstance(cache, SqliteCache)
    with Embedder(FakeEngine(), "fake", cache=cache) as embedder:
        embedder.embed_documents(["a very secret sentence"])
    assert b"secret" not in path.read_bytes()
