"""`connect()` to several servers: all texts once and in order, whatever becomes of the servers meanwhile."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from contextlib import ExitStack

import pytest
from fleets import TEXTS, Machine, assert_all_there, machines
from waiting import until

import q3e_local
from q3e_local import EmbedRequest
from q3e_local.errors import (
    EngineError,
    OptionError,
    Q3EError,
    SpaceMismatchError,
    TextError,
    UnknownModelError,
)
from q3e_local.remote import member
from q3e_local.remote.connection import ServerRefusedError, ServerUnreachableError
from q3e_local.server.errors import QueueFullError
from q3e_local.server.service import ServiceRequest

NOBODY = "127.0.0.1:9"  # discard: nobody listens
NOBODY_EITHER = "127.0.0.1:13"  # daytime


@pytest.fixture
def quickly(monkeypatch):
    """A server that failed is tried again without a pause."""
    monkeypatch.setattr(member, "_PAUSES_S", (0.0, 0.0))


@pytest.fixture
def warnings(caplog):
    """`warnings()`: the lines that were logged so far."""
    return lambda: caplog.messages


def at_pace(seconds: float) -> Machine:
    """A machine that takes so long for each text."""

    async def before(request: ServiceRequest) -> None:
        await asyncio.sleep(seconds * len(request.inputs))

    return Machine(before)


def broken(error: Exception) -> Machine:
    """A machine that fails on every request for vectors."""

    async def before(request: ServiceRequest) -> None:
        raise error

    return Machine(before)


def hanging() -> Machine:
    """A machine that never answers a request for vectors; `cancelled` says that its client left."""
    machine = Machine()

    async def before(request: ServiceRequest) -> None:
        await machine.wait()

    machine.before = before
    return machine


def n_batches(machine: Machine) -> int:
    """How many requests for vectors came to a machine that answers none."""
    return len([request for request in machine.requests if request.inputs])


def no_threads() -> None:
    until(lambda: not [thread for thread in threading.enumerate() if thread.name == "q3e-server"])


def results_of(urls: list[str], texts: list[str] = TEXTS, **options):
    with q3e_local.connect(urls, "demo") as far:
        return list(far.stream(EmbedRequest(iter(texts), **options)))


def test_a_machine_of_half_the_speed_does_about_half_and_the_order_stays():
    with machines(at_pace(0.003), at_pace(0.003), at_pace(0.006)) as urls, q3e_local.connect(urls, "demo") as far:
        assert_all_there(TEXTS, list(far.stream(EmbedRequest(TEXTS))))
        shares = far.n_texts_by_server
    assert list(shares) == urls
    assert sum(shares.values()) == len(TEXTS)
    fast, other, slow = shares.values()
    assert 0.25 < slow / ((fast + other) / 2) < 0.8  # a busy machine slows all down alike
    no_threads()


def test_every_text_is_computed_once_where_nothing_fails(monkeypatch):
    monkeypatch.setattr("q3e_local.remote.sharing._OVERDUE", 1000.0)  # on a busy machine any may take long
    services = [at_pace(0.001) for _ in range(3)]
    with machines(*services) as urls:
        assert_all_there(TEXTS, results_of(urls))
    assert sorted(text for service in services for text in service.embedded) == sorted(TEXTS)


def test_it_answers_what_one_server_answers():
    texts = TEXTS[:40]
    with machines(Machine(), Machine()) as urls, ExitStack() as stack:
        far, one = (stack.enter_context(q3e_local.connect(address, "demo")) for address in (urls, urls[0]))
        assert repr(far) == f"<Fleet demo on {urls[0]}, {urls[1]}>"
        for options in ({}, {"dim": 32, "task": "sts"}, {"max_tokens": 75, "truncate": True}):
            ours, theirs = far.embed_queries(texts, **options), one.embed_queries(texts, **options)
            assert (ours.vectors == theirs.vectors).all()
            assert (ours.space, ours.prompt_tokens, ours.truncated) == (
                theirs.space, theirs.prompt_tokens, theirs.truncated,
            )  # fmt: skip
        assert far.count_tokens(texts) == one.count_tokens(texts)
        facts = [(model.n_embd, model.n_ctx_max, model.digest, model.loads_as) for model in (far, one)]
        assert facts[0] == facts[1]


def test_the_same_server_twice_and_none_at_all_are_refused():
    with pytest.raises(OptionError, match=r"the server http://127\.0\.0\.1:9 is named twice"):
        q3e_local.connect([NOBODY, f"http://{NOBODY}/"], "demo")
    with pytest.raises(OptionError, match="got none"):
        q3e_local.connect([], "demo")


# One space.


def test_a_server_of_another_model_is_refused_before_the_first_text():
    services = Machine(), Machine(), Machine(digest="other")
    with machines(*services) as urls, pytest.raises(SpaceMismatchError) as raised:
        results_of(urls)
    assert f"{urls[0]} those of the space q3e1-fake-256-plain, {urls[2]} those of q3e1-other-256-plain" in str(
        raised.value
    )
    assert [service.embedded for service in services] == [[], [], []]


def test_a_server_without_the_model_is_named():
    class Without(Machine):
        async def load(self, model, keep_alive_s):
            raise UnknownModelError(f"there is no model {model!r}")

    with machines(Machine(), Without()) as urls, pytest.raises(UnknownModelError) as raised:
        results_of(urls)
    assert str(raised.value) == f"{urls[1]} cannot be used: the server: there is no model 'demo'"


def test_a_model_that_is_replaced_meanwhile_ends_the_call():
    other = at_pace(0.001)
    with machines(at_pace(0.001), other) as urls, q3e_local.connect(urls, "demo") as far:
        results = far.stream(EmbedRequest(TEXTS))
        done = [next(results)]
        other.digest = "other"
        with pytest.raises(SpaceMismatchError, match=f"{urls[1]} has another model"):
            done.extend(results)
    assert_all_there(TEXTS[: len(done)], done)
    no_threads()


def test_options_that_the_model_does_not_have_are_refused_at_once():
    with machines(Machine(), Machine()) as urls, pytest.raises(OptionError, match="dim must be between 1 and 256"):
        results_of(urls, dim=999)


# Servers that fail.


def test_a_server_that_is_not_there_is_left_out_with_one_line(warnings):
    with machines(Machine(), Machine()) as urls, q3e_local.connect([*urls, NOBODY], "demo") as far:
        assert_all_there(TEXTS, list(far.stream(EmbedRequest(TEXTS))))
        assert_all_there(TEXTS, list(far.stream(EmbedRequest(TEXTS))))
        assert far.n_texts_by_server[f"http://{NOBODY}"] == 0
    (said,) = warnings()
    assert said.startswith(f"http://{NOBODY} is left out: no server answers at http://{NOBODY}; start one with: ")


def test_where_no_server_is_there_the_last_error_says_why():
    with pytest.raises(ServerUnreachableError) as raised:
        results_of([NOBODY, NOBODY_EITHER])
    assert str(raised.value).startswith(
        "none of the 2 servers can be used: no server answers at http://127.0.0.1:13;"
    )


def test_a_server_that_fails_three_times_is_left_out_and_others_do_its_texts(quickly, warnings):
    bad = broken(EngineError("llama.cpp failed"))
    with machines(at_pace(0.0005), bad, at_pace(0.0005)) as urls, q3e_local.connect(urls, "demo") as far:
        assert_all_there(TEXTS, list(far.stream(EmbedRequest(TEXTS))))
        assert far.n_texts_by_server[urls[1]] == 0
    assert warnings() == [f"{urls[1]} is left out after 3 failures: {urls[1]}: llama.cpp failed"]
    assert n_batches(bad) == 3


def test_failures_that_are_not_in_a_row_leave_no_server_out(quickly, warnings):
    counts = itertools.count()

    async def every_third_works(request: ServiceRequest) -> None:
        if next(counts) % 3:
            raise EngineError("llama.cpp failed")

    unsteady = Machine(every_third_works)
    with machines(at_pace(0.001), unsteady) as urls, q3e_local.connect(urls, "demo") as far:
        assert_all_there(TEXTS, list(far.stream(EmbedRequest(TEXTS))))
        assert far.n_texts_by_server[urls[1]] > 0
    assert [line for line in warnings() if "left out" in line] == []


def test_a_server_that_was_left_out_is_tried_by_a_later_call(quickly, warnings, monkeypatch):
    monkeypatch.setattr(member, "_REST_S", 0.0)
    bad = broken(EngineError("llama.cpp failed"))
    with machines(at_pace(0.001), bad) as urls, q3e_local.connect(urls, "demo") as far:
        far.embed_documents(TEXTS)
        bad.before = None
        assert_all_there(TEXTS, list(far.stream(EmbedRequest(TEXTS))))
        assert far.n_texts_by_server[urls[1]] > 0
    assert len(warnings()) == 1


def test_when_the_last_server_fails_its_error_is_raised_and_what_was_done_is_there(quickly, warnings):
    n_done = itertools.count()

    async def three_times(request: ServiceRequest) -> None:
        if next(n_done) >= 3:
            raise EngineError("llama.cpp failed")

    with machines(Machine(three_times), Machine(three_times)) as urls, q3e_local.connect(urls, "demo") as far:
        results = far.stream(EmbedRequest(TEXTS))
        done = []
        with pytest.raises(ServerRefusedError, match=r"llama\.cpp failed"):
            done.extend(results)
    assert_all_there(TEXTS[: len(done)], done)
    assert 0 < len(done) < len(TEXTS)
    assert len(warnings()) == 1  # of the first that was left out


def test_a_text_that_every_server_fails_on_ends_the_call_though_all_others_work(quickly):
    texts = [*TEXTS[:600], "poison", *TEXTS[600:]]

    async def all_but(request: ServiceRequest) -> None:
        await asyncio.sleep(0.0005 * len(request.inputs))
        if "poison" in request.inputs:
            raise EngineError("llama.cpp failed")

    with machines(Machine(all_but), Machine(all_but)) as urls, pytest.raises(ServerRefusedError, match="failed"):
        results_of(urls, texts)


def test_a_busy_server_has_not_failed_and_holds_nothing_up(warnings):
    async def busy(request: ServiceRequest) -> None:
        raise QueueFullError("the queue is full", 60)

    full = Machine(busy)
    with machines(full, Machine()) as urls, q3e_local.connect(urls, "demo") as far:
        began = time.monotonic()
        assert_all_there(TEXTS, list(far.stream(EmbedRequest(TEXTS))))
        assert time.monotonic() - began < 30
        assert far.n_texts_by_server[urls[0]] == 0
    assert n_batches(full) == 1
    assert warnings() == []


def test_servers_that_are_busy_for_a_moment_are_asked_again(warnings):
    counts = itertools.count()

    async def at_first(request: ServiceRequest) -> None:
        if next(counts) < 2:
            raise QueueFullError("the queue is full", 1)

    with machines(Machine(at_first), Machine(at_first)) as urls:
        assert_all_there(TEXTS[:20], results_of(urls, TEXTS[:20]))
    assert warnings() == []


def test_a_server_that_hangs_holds_up_nothing_and_is_left(monkeypatch):
    stuck = hanging()
    with machines(stuck, at_pace(0.0005)) as urls:
        assert_all_there(TEXTS, results_of(urls))
        assert stuck.requests
        assert stuck.cancelled.wait(30)  # its client hung up
    no_threads()


@pytest.mark.parametrize("digest", ["fake", "other"])
def test_a_server_that_loads_its_model_for_long_holds_up_nothing_and_must_still_have_the_same(
    digest, monkeypatch, warnings
):
    monkeypatch.setattr("q3e_local.remote.roll_call.LATE_S", 0.3)
    is_loaded = threading.Event()

    class Loading(Machine):
        async def load(self, model, keep_alive_s):
            while not is_loaded.is_set():
                await asyncio.sleep(0.01)

    with machines(at_pace(0.002), Loading(digest=digest)) as urls, q3e_local.connect(urls, "demo") as far:
        results = far.stream(EmbedRequest(itertools.cycle(TEXTS)))
        done = list(itertools.islice(results, 200))
        assert warnings() == [f"{urls[1]} has not answered for 0 s: the others begin"]
        assert far.n_texts_by_server[urls[1]] == 0
        is_loaded.set()
        if digest == "fake":
            done.extend(itertools.islice(results, 4000))  # more than are ahead
            results.close()
            assert far.n_texts_by_server[urls[1]] > 0
        else:
            with pytest.raises(SpaceMismatchError, match=f"{urls[1]} has another model"):
                done.extend(results)
    assert_all_there([TEXTS[n % len(TEXTS)] for n in range(len(done))], done)


def test_a_server_that_does_not_answer_while_others_do_its_texts_is_named(monkeypatch, warnings):
    monkeypatch.setattr("q3e_local.remote.sharing._SILENT_S", 0.0)
    with machines(hanging(), at_pace(0.002)) as urls:
        assert_all_there(TEXTS, results_of(urls))
    (said,) = warnings()
    assert said.startswith(f"{urls[0]} has not answered for ")


def test_words_are_counted_by_servers_that_take_different_numbers_of_texts(warnings):
    texts = [f"{n} words and {n + 1}" for n in range(500)]
    with ExitStack() as stack:
        urls = [*stack.enter_context(machines(Machine())), *stack.enter_context(machines(Machine(), max_items=7))]
        far = stack.enter_context(q3e_local.connect(urls, "demo"))
        assert far.count_tokens(texts) == [len(text) + 1 for text in texts]
        assert_all_there(texts, list(far.stream(EmbedRequest(texts))))
    assert warnings() == []


def test_words_are_counted_though_a_server_fails(quickly, warnings):
    class Uncounted(Machine):
        async def count_tokens(self, model, texts):
            raise EngineError("llama.cpp failed")

    texts = [f"{n} words and {n + 1}" for n in range(2000)]
    with machines(Uncounted(), Machine()) as urls, q3e_local.connect(urls, "demo") as far:
        assert far.count_tokens(texts) == [len(text) + 1 for text in texts]
    assert len([line for line in warnings() if "left out" in line]) <= 1


# Calls that end early.


def test_a_call_that_is_not_read_to_its_end_leaves_no_thread_and_no_request():
    stuck = hanging()
    with machines(Machine(), stuck) as urls, q3e_local.connect(urls, "demo") as far:
        results = far.stream(EmbedRequest(itertools.cycle(TEXTS)))
        assert_all_there(TEXTS[:10], list(itertools.islice(results, 10)))
        until(lambda: stuck.requests)
        results.close()
        assert stuck.cancelled.wait(30)
        no_threads()
        assert_all_there(TEXTS[:5], list(far.stream(EmbedRequest(TEXTS[:5]))))  # it can still be used


def test_closing_the_model_ends_a_call_that_waits():
    stuck = [hanging(), hanging()]
    with machines(*stuck) as urls:
        far = q3e_local.connect(urls, "demo")
        threading.Timer(0.5, far.close).start()
        with pytest.raises(Q3EError):
            far.embed_documents(TEXTS)
        assert all(machine.cancelled.wait(30) for machine in stuck if machine.requests)
    no_threads()


def test_two_calls_at_once_do_not_disturb_each_other():
    with machines(at_pace(0.001), at_pace(0.001)) as urls, q3e_local.connect(urls, "demo") as far:
        for_ever = far.stream(EmbedRequest(itertools.cycle(TEXTS)))
        next(for_ever)
        other = far.stream(EmbedRequest(TEXTS))
        done = [next(other)]
        for_ever.close()  # hangs up, where its requests are at work alone
        assert_all_there(TEXTS, [*done, *other])


def test_an_error_of_reading_comes_when_its_turn_comes():
    def source():
        yield from TEXTS[:500]
        raise OSError("the disk is gone")

    done = []
    with machines(at_pace(0.001), at_pace(0.002)) as urls, q3e_local.connect(urls, "demo") as far:
        results = far.stream(EmbedRequest(source()))
        with pytest.raises(OSError, match="the disk is gone"):
            done.extend(results)
    assert_all_there(TEXTS[:500], done)


# What a call promises.


def test_a_text_that_cannot_be_embedded_is_named_by_its_place():
    texts = list(TEXTS[:1000])
    for place in (3, 500, 999):
        texts[place] = "x" * 200  # 100 ids are the limit
    texts[700] = "\ud800"
    with machines(Machine(), Machine(), max_items=50) as urls:
        results = results_of(urls, texts)
    bad = {place: result for place, result in enumerate(results) if isinstance(result, TextError)}
    assert {place: error.index for place, error in bad.items()} == {3: 3, 500: 500, 700: 700, 999: 999}
    assert "has 201 tokens, the limit is 100" in bad[500].message
    good = [place for place in range(1000) if place not in bad]
    assert_all_there([texts[place] for place in good], [results[place] for place in good])


def test_progress_comes_after_the_results_it_counts_and_ends_with_all():
    n_handed_back = 0
    told = []

    def progress(n_texts, n_tokens):
        told.append((n_texts, n_tokens))
        assert n_handed_back == n_texts
        assert threading.current_thread() is threading.main_thread()

    with machines(at_pace(0.001), at_pace(0.002)) as urls, q3e_local.connect(urls, "demo") as far:
        for _ in far.stream(EmbedRequest(TEXTS), progress):
            n_handed_back += 1
    assert told[-1] == (len(TEXTS), sum(len(text) + 1 for text in TEXTS))
    assert told == sorted(told)


def test_texts_are_read_on_the_callers_thread_and_only_some_ahead():
    n_read = 0

    def source():
        nonlocal n_read
        while True:
            assert threading.current_thread() is threading.main_thread()
            n_read += 1
            yield "short"

    with machines(Machine(), Machine()) as urls, q3e_local.connect(urls, "demo") as far:
        results = far.stream(EmbedRequest(source()))
        for n_handed_back in range(1, 8_000):
            next(results)
            assert n_read - n_handed_back <= 2 * 4 * 256
        results.close()
        done = n_read
        time.sleep(0.2)
        assert n_read == done


def test_no_texts_are_no_results():
    with machines(Machine(), Machine()) as urls:
        assert results_of(urls, []) == []
