"""Beginnings that texts share: computed once for a batch, kept for the next, and never mixed up."""

from __future__ import annotations

import numpy as np
import pytest
from engines import BAD, Ids, broken, hold, small

from q3e_local.errors import BadVectorError
from q3e_local.llama.engine import LlamaEngine
from q3e_local.llama.pooling_context import Counts
from q3e_local.llama.prefixes import KeptPrefixes


@pytest.fixture
def alike(eos_id: int) -> list[Ids]:
    """Three short sequences with their first 12 ids in common, and another sequence."""
    rng = np.random.default_rng(5)
    head = rng.integers(0, 1000, 12).tolist()
    tails = [[*rng.integers(0, 1000, n).tolist(), eos_id] for n in (1, 3, 4, 4)]
    return [head + tails[0], tails[3], head + tails[1], head + tails[2]]


def test_a_shared_prefix_is_computed_once_for_a_batch_and_not_again_in_the_next(f32, alike, truth):
    n_own = sum(map(len, alike)) - 3 * 12
    with LlamaEngine(f32, small()) as engine:
        for n_decodes, n_tokens, n_reused in ((1, 12 + n_own, 24), (2, 12 + 2 * n_own, 60)):
            hold(engine.decode(alike, [12, 0, 12, 12]), truth(alike))
            assert engine.counts == Counts(n_decodes, n_tokens, n_reused)
        # A text in each call, as from clients of a server; the kept prefix serves a shorter and a longer prefix too.
        for ids, n_prefix in ((alike[0], 12), (alike[2], 10), (alike[3], 14)):
            before = engine.counts.n_tokens
            hold(engine.decode([ids], [n_prefix]), truth([ids]))
            assert engine.counts.n_tokens - before == len(ids) - min(n_prefix, 12)
        hold(engine.decode(alike[:2]), truth(alike[:2]))  # no call has to share


def test_two_instructions_in_one_batch_do_not_mix(f32, eos_id, truth):
    first, second = np.random.default_rng(6).integers(0, 1000, (2, 9)).tolist()
    sequences = [[*head, *tail, eos_id] for tail in ([3], [4, 5]) for head in (first, second)]
    with LlamaEngine(f32, small()) as engine:
        for _ in range(3):
            hold(engine.decode(sequences, [9] * 4), truth(sequences))
        assert engine.counts == Counts(3, 2 * 9 + 3 * (2 * 2 + 2 * 3), 2 * 9 + 2 * 4 * 9)


def test_a_prefix_may_be_all_but_the_last_id_or_more_than_there_is(f32, eos_id, truth):
    ids = [*range(5, 20), eos_id]
    with LlamaEngine(f32, small()) as engine:
        for n_prefix in (15, 16, 99):
            hold(engine.decode([ids, ids], [n_prefix] * 2), truth([ids, ids]))


def test_a_kept_prefix_that_no_longer_fits_beside_the_others_is_computed_anew(f32, eos_id, truth):
    first, other = np.random.default_rng(8).integers(0, 1000, (2, 200)).tolist()
    with LlamaEngine(f32, small(n_batch=256)) as engine:
        engine.decode([[*first, eos_id]], [200])
        engine.decode([[*other, eos_id]], [200])
        # 200 cells of the other prefix, and 200 to restore the first before it is cut to 20: more than 256.
        batch = [[*other, 6, eos_id], [*first[:20], 5, eos_id]]
        hold(engine.decode(batch, [200, 20]), truth(batch))


def test_a_prefix_of_a_text_without_a_vector_is_not_kept(changed, eos_id):
    head = [BAD, *range(5, 15)]
    with LlamaEngine(changed(broken), small()) as engine:
        for _ in range(2):
            with pytest.raises(BadVectorError):
                engine.decode([[*head, 7, eos_id]], [11])
        assert engine.counts.n_reused == 0
        assert np.isfinite(engine.decode([[*range(5, 15), eos_id]], [8])).all()


# Without the tap


def test_without_the_tap_what_fits_by_sharing_alone_is_decoded_apart(f32, eos_id, truth):
    sequences = [[*range(20, 36), 100 + place, eos_id] for place in range(5)]
    with LlamaEngine(f32, small(tap=False)) as engine:
        hold(engine.decode(sequences, [16] * 5), truth(sequences))


def test_of_texts_decoded_apart_the_one_without_a_vector_is_named(changed, eos_id):
    sequences = [[*range(20, 36), last, eos_id] for last in (100, 101, 102, 103, BAD)]
    with LlamaEngine(changed(broken), small(tap=False)) as engine, pytest.raises(BadVectorError) as caught:
        engine.decode(sequences, [16] * 5)
    assert caught.value.index == 4


# Which are kept


def test_only_a_few_prefixes_are_kept_and_the_least_recently_used_goes():
    kept = KeptPrefixes(n_max=2, n_bytes_max=400)
    heads = [tuple(range(start, start + 10)) for start in (0, 100, 200)]
    for place, head in enumerate(heads[:2]):
        kept.keep(head, np.full(40, place, np.uint8))
    assert kept.find([*heads[0], 7], 99)[0] == 10  # used: the other is the least recently used now
    kept.keep(heads[2], np.full(40, 2, np.uint8))
    assert [kept.find(head, 99)[0] for head in heads] == [10, 0, 10]
    assert kept.find(heads[0][:7], 99) == (0, None)  # too short to be worth it
    assert kept.find(heads[0], 9) == (0, None)  # it needs 10 cells to be put back


def test_a_large_prefix_replaces_the_large_one_before_it_and_no_instruction():
    kept = KeptPrefixes(n_max=2, n_bytes_max=400)
    heads = [tuple(range(start, start + 10)) for start in (0, 100, 200, 300)]
    for place, head in enumerate(heads):
        kept.keep(head, np.full(40 if place < 2 else 150, place, np.uint8))
    assert [kept.find(head, 99)[0] for head in heads] == [10, 10, 0, 10]
    assert not kept.room_for(201)
    kept.clear()
    assert [kept.find(head, 99)[0] for head in heads] == [0] * 4
