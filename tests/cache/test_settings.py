"""Which cache a setting means, and how large it may be."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from q3e_local.cache.choose import chosen, open_cache, size_bytes
from q3e_local.cache.sqlite import SqliteCache
from q3e_local.errors import MissingPackageError, OptionError
from q3e_local.files import cache_folder

GIB = 1 << 30


@pytest.mark.parametrize("setting", [None, False, "off", "OFF", "no", "false", "0", " 'off' "])
def test_settings_that_mean_none(setting):
    assert open_cache(setting) is None


@pytest.mark.parametrize("setting", [True, "on", "On", "yes", "true", "1"])
def test_settings_that_mean_the_usual_file(setting):
    cache = open_cache(setting, {})
    assert isinstance(cache, SqliteCache)
    assert (cache.path, cache.size_bytes) == (cache_folder() / "vectors.sqlite", GIB)
    assert not cache_folder().exists()


def test_settings_that_mean_a_place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert open_cache("~/x.sqlite", {}).where == str(Path.home() / "x.sqlite")
    assert open_cache(Path("sub/x"), {}).where == str(tmp_path / "sub" / "x")
    assert open_cache("./on", {}).where == str(tmp_path / "on")
    assert open_cache("redis://user:secret@example.com/2", {}).where == "redis://example.com:6379/2"
    assert open_cache("rediss://[::1]:7000", {}).where == "rediss://[::1]:7000"


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("", "cache must be on, off, a path or redis://host:port/db, got an empty text"),
        ("disabled", "cache must be on, off, a path or redis://host:port/db, got disabled; as a file: ./disabled"),
        ("http://user:secret@here:1", "a cache's address begins with redis:// or rediss://, got http://"),
        ("redis://here:port/0", "the cache's address must be redis://host:port/db"),
        ("redis://here:1/x?db=secret", "the cache's address must be redis://host:port/db"),
        ("redis://here/0?socket_timeout=x", "the cache's address must be redis://host:port/db"),
    ],
)
def test_settings_that_mean_nothing_are_refused(setting, sentence):
    with pytest.raises(OptionError) as caught:
        open_cache(setting, {})
    assert str(caught.value).startswith(sentence)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("flag", "variable", "expected"),
    [
        (None, None, "on"), (None, "", "on"), (None, "off", "off"), (None, "redis://x", "redis://x"),
        (True, None, "on"), (True, "off", "on"), (True, "/a/path", "/a/path"),
        (False, None, "off"), (False, "/a/path", "off"),
    ],
)  # fmt: skip
def test_the_flag_comes_before_the_variable_and_the_variable_says_where(flag, variable, expected):
    assert chosen(flag, {} if variable is None else {"Q3E_CACHE": variable}) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", GIB), ("500MB", 500_000_000), ("2GB", 2_000_000_000), ("2 gb", 2_000_000_000), ("1GiB", GIB),
        ("1.5G", 1_500_000_000), ("2000000", 2_000_000), ("'2M'", 2_000_000), ("1000KB", 1_000_000),
        ("1T", 10**12), ("1000000b", 1_000_000),
    ],
)  # fmt: skip
def test_sizes(text, expected):
    assert size_bytes({"Q3E_CACHE_SIZE": text}) == expected
    assert open_cache("x.sqlite", {"Q3E_CACHE_SIZE": text}).size_bytes == expected


@pytest.mark.parametrize("text", ["0", "-1", "1e9", "GB", "12 cows", "999999", "1025TiB", "1MBB", "１GB"])
def test_sizes_that_are_none(text):
    with pytest.raises(OptionError, match="Q3E_CACHE_SIZE must be"):
        size_bytes({"Q3E_CACHE_SIZE": text})


def test_without_the_extra_the_answer_is_the_line_that_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "redis", None)
    monkeypatch.delitem(sys.modules, "q3e_local.cache.redis")
    with pytest.raises(MissingPackageError, match=r"pip install 'q3e-local\[redis\]'"):
        open_cache("redis://localhost")


def test_where_sqlite_cannot_be_loaded_work_goes_on_without_the_cache(monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "q3e_local.cache.sqlite", None)
    assert open_cache(True) is None
    assert "there is no cache, because SQLite cannot be loaded" in caplog.text
