"""Settings: what is given stands before what was tuned, and that before defaults; each with its reason."""

from __future__ import annotations

from typing import Any

import pytest

from q3e_local.engine import EngineConfig
from q3e_local.errors import OptionError
from q3e_local.tuning import LONG, TUNABLE, Host, Tuned, other_threads, settle, sparing

HERE = Host(4, features=frozenset({"AVX2", "AVX512"}))
TUNED = Tuned(
    n_threads=8, n_batch=768, flash_attention=True, day="2026-11-20",
    long_flash_attention=False, long_kv_type="bf16", long_batch=1024,
)  # fmt: skip


def values(config: EngineConfig, host: Host = HERE, tuned: Tuned | None = None) -> dict[str, Any]:
    settings = settle(config, host, tuned)
    return {name: getattr(settings, name) for name in TUNABLE}


def test_defaults() -> None:
    settings = settle(EngineConfig(), HERE)
    assert [settings.explained(name) for name in TUNABLE] == [
        "n_threads 4 (physical cores)",
        "n_batch 512 (default)",
        "flash_attention on (default)",
        "long_flash_attention on (as for batches)",
        "long_kv_type f16 (default)",
        "long_batch 512 (as for batches)",
    ]


def test_a_gpu_gets_larger_batches() -> None:
    settings = settle(EngineConfig(), Host(4, on_gpu=True))
    assert settings.explained("n_batch") == "n_batch 1024 (default on a GPU)"


def test_what_was_tuned_stands_before_defaults_and_what_is_given_before_both() -> None:
    tuned = {
        "n_threads": 8, "n_batch": 768, "flash_attention": True,
        "long_flash_attention": False, "long_kv_type": "bf16", "long_batch": 1024,
    }  # fmt: skip
    assert values(EngineConfig(), tuned=TUNED) == tuned
    # What is given for batches is for long texts too, unless something is given for those.
    along = {"n_batch": {"long_batch": 96}, "flash_attention": {"long_flash_attention": False}}
    given = {
        "n_threads": 1, "n_batch": 96, "flash_attention": False,
        "long_flash_attention": False, "long_kv_type": "f16", "long_batch": 64,
    }  # fmt: skip
    for name, value in given.items():
        config = EngineConfig(**{name: value})
        changed = {name: value} | along.get(name, {})
        assert values(config, tuned=TUNED) == tuned | changed
        settings = settle(config, HERE, TUNED)
        sources = {one: settings.reasons[one].source for one in TUNABLE}
        assert sources == dict.fromkeys(TUNABLE, "tuned") | dict.fromkeys(changed, "given")
    assert settle(EngineConfig(), HERE, TUNED).explained("n_batch") == "n_batch 768 (tuned on 2026-11-20)"


def test_what_was_not_measured_is_a_default() -> None:
    settings = settle(EngineConfig(), HERE, Tuned(None, None, False, "2026-11-20"))
    sources = {name: settings.reasons[name].source for name in TUNABLE}
    tuned = dict.fromkeys(("flash_attention", "long_flash_attention"), "tuned")
    assert sources == dict.fromkeys(TUNABLE, "default") | tuned
    assert (settings.n_threads, settings.flash_attention) == (4, False)


def test_long_texts_are_computed_as_batches_are_unless_that_was_tuned_or_given() -> None:
    tuned = Tuned(n_threads=None, n_batch=768, flash_attention=False, day="2026-11-20")
    found = settle(EngineConfig(), HERE, tuned)
    assert [found.explained(name) for name in LONG] == [
        "long_flash_attention off (as for batches)",
        "long_kv_type f16 (default)",
        "long_batch 768 (as for batches)",
    ]
    assert found.reasons["long_batch"].source == "tuned"
    found = settle(EngineConfig(n_batch=32, long_flash_attention=True, flash_attention=False), HERE, tuned)
    assert (found.flash_attention, found.long_flash_attention) == (False, True)
    assert found.long_batch == 64  # fewer would be added up in f16


def test_bf16_that_was_tuned_is_for_attention_without_flash_attention_alone() -> None:
    for name in ("flash_attention", "long_flash_attention"):
        found = settle(EngineConfig(**{name: True}), HERE, TUNED)
        assert found.explained("long_kv_type") == "long_kv_type f16 (default)"
    found = settle(EngineConfig(long_kv_type="bf16"), HERE)
    assert found.long_attention == "flash bf16"


def test_where_memory_is_short_what_was_tuned_gives_way_and_what_was_given_does_not() -> None:
    less = sparing(settle(EngineConfig(), HERE, TUNED))
    assert (less.long_attention, less.long_batch) == ("flash f16", 512)
    assert less.explained("long_batch") == "long_batch 512 (for want of memory)"
    less = sparing(settle(EngineConfig(long_batch=2048, flash_attention=False), HERE, TUNED))
    assert (less.long_attention, less.long_batch) == ("plain bf16", 2048)
    assert sparing(settle(EngineConfig(), HERE)) == settle(EngineConfig(), HERE)


@pytest.mark.parametrize(
    "options", [{"long_batch": 63}, {"long_batch": 65_537}, {"long_kv_type": "f32"}, {"long_kv_type": "q8_0"}]
)
def test_what_long_texts_cannot_have_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match=r"long_\w+ must be (between 64 and 65536|f16 or bf16), got "):
        EngineConfig(**options)


@pytest.mark.parametrize(
    ("n_cores", "n_cpus", "expected"),
    [
        (1, 1, []),
        (2, 2, []),
        (2, 4, [4]),
        (3, 3, []),
        (4, 4, [2]),
        (4, 8, [8, 4 // 2]),
        (14, 20, [20, 7]),
        (4, 2, [2]),
    ],
)
def test_threads_to_try(n_cores: int, n_cpus: int, expected: list[int]) -> None:
    assert other_threads(n_cores, n_cpus) == expected
