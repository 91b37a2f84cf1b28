"""Addresses of stores: what they mean, which are refused, and that nobody sees a password."""

from __future__ import annotations

from pathlib import Path

import pytest

from q3e_local.errors import OptionError
from q3e_local.stores.address import StoreAddress, parse


@pytest.mark.parametrize(
    ("text", "kind", "place", "collection"),
    [
        ("qdrant://localhost:6333", "qdrant", "qdrant://localhost:6333", "q3e"),
        ("qdrant+https://:KEY@q.example.org#my-notes", "qdrant", "qdrant+https://q.example.org", "my-notes"),
        ("QDRANT://[::1]:6333#notes", "qdrant", "qdrant://[::1]:6333", "notes"),
        ("qdrant:folder#notes", "qdrant", "folder", "notes"),
        ("milvus:notes.db", "milvus", "notes.db", "q3e"),
        ("milvus://root:pw@localhost:19530/work#notes", "milvus", "milvus://localhost:19530/work", "notes"),
        ("postgresql://me:pw@db/shop?sslmode=require#notes", "pgvector", "postgresql://db/shop", "notes"),
        ("postgres:///shop?host=/run/postgresql", "pgvector", "postgres:///shop", "q3e"),
        ("lancedb:notes", "lancedb", "notes", "q3e"),
        ("notes.lancedb#a_1", "lancedb", "notes.lancedb", "a_1"),
        ("chroma://localhost:8000", "chroma", "chroma://localhost:8000", "q3e"),
        ("sqlite-vec:a#b.db#notes", "sqlite-vec", "a#b.db", "notes"),
        ("C.sqlite", "sqlite-vec", "C.sqlite", "q3e"),
        ("notes.SQLITE3#old", "sqlite-vec", "notes.SQLITE3", "old"),
        ("rediss://:pw@r:6380/1#notes", "redis", "rediss://r:6380/1", "notes"),
    ],
)
def test_addresses(text, kind, place, collection):
    address = parse(text)
    assert (address.kind, address.place, address.collection) == (kind, place, collection)
    assert str(address) == f"{place}#{collection}"
    assert (address.url is None) is (address.path is not None) is ("//" not in text)


def test_a_file_for_pinecone_has_no_collection():
    address = parse("pinecone:a#b.parquet")
    assert (str(address), address.path) == ("a#b.parquet", Path("a#b.parquet"))


@pytest.mark.parametrize(
    "text", ["all.jsonl", "all.parquet", "a.npy", "C:\\x\\all.jsonl", "2024-05:notes.jsonl", "a.xls"]
)
def test_other_files_are_no_stores(text):
    assert parse(text) is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("http://localhost:6333", r"http://\.\.\. is no address of a store; stores are qdrant://HOST:PORT, "),
        ("weaviate://h/x", r"weaviate://\.\.\. is no address of a store"),
        ("redis:file", "a store at redis: is a server: write redis://HOST"),
        ("qdrant://", "the address of qdrant has no host; it is like qdrant://HOST:PORT"),
        ("qdrant://h:port", "the address of qdrant cannot be read"),
        ("lancedb:", "lancedb: needs a file or folder behind it"),
        ("lancedb:x#ab", "3 to 63 letters, digits, _ and -, no _ or - at an end; got 'ab'"),
        ('lancedb:x#a"; DROP', "3 to 63 letters"),
        ("qdrant://h#" + "x" * 64, "3 to 63 letters"),
    ],
)
def test_what_no_store_has_is_refused(text, message):
    with pytest.raises(OptionError, match=message):
        parse(text)


@pytest.mark.parametrize(
    ("text", "password"),
    [
        ("postgresql://me:hunter2@h/db", "hunter2"),
        ("postgresql://me:h%40nter2@h/db", "h@nter2"),
        ("postgresql://me@h/db?password=hunter2&sslmode=require", "hunter2"),
        ("qdrant://:hunter2@h", "hunter2"),
        ("qdrant://h", ""),
        ("lancedb:x", ""),
    ],
)
def test_a_password_is_known_and_not_shown(text, password):
    address = parse(text)
    assert address.password == password
    for shown in (str(address), repr(address), address.place):
        assert not password or ("unter2" not in shown and "nter2" not in shown)


def test_an_address_that_cannot_be_read_is_told_without_its_password():
    for text in (
        "postgresql://me:hunter2@[h/db",
        "qdrant://me:hunter2@h:x",
        "ftp://me:hunter2@h",
        "postgresql://me:1/hunter2@h/db",
        "postgresql://me:1#hunter2@h/db",
    ):
        with pytest.raises(OptionError) as caught:
            parse(text)
        assert "hunter2" not in str(caught.value)


def test_an_address_is_equal_to_one_that_says_the_same():
    assert parse("qdrant://h#abc") == StoreAddress("qdrant", "abc", url="qdrant://h")
