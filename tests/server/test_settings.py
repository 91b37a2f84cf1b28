"""A server's settings from options, variables and a file; Ollama's variables are read as Ollama reads them."""

from __future__ import annotations

import pytest

from q3e_local.errors import OptionError
from q3e_local.models.own_names import Alias, read_aliases
from q3e_local.server.settings import ServerSettings, duration_s, keep_alive, settings
from q3e_local.wording import address

# ollama envconfig/config_test.go, TestHost
OLLAMA_HOSTS = {
    "": "http://127.0.0.1:11434",
    "1.2.3.4": "http://1.2.3.4:11434",
    ":1234": "http://:1234",
    "1.2.3.4:1234": "http://1.2.3.4:1234",
    "example.com": "http://example.com:11434",
    "example.com:1234": "http://example.com:1234",
    "example.com:": "http://example.com:11434",
    ":0": "http://:0",
    ":66000": "http://:11434",
    ":-1": "http://:11434",
    "1.2.3.4:x": "http://1.2.3.4:11434",
    "[::1]": "http://[::1]:11434",
    "[::]": "http://[::]:11434",
    "::1": "http://[::1]:11434",
    "[::1]:1337": "http://[::1]:1337",
    " 1.2.3.4 ": "http://1.2.3.4:11434",
    '"1.2.3.4"': "http://1.2.3.4:11434",
    ' " 1.2.3.4 " ': "http://1.2.3.4:11434",
    "'1.2.3.4'": "http://1.2.3.4:11434",
    "http://1.2.3.4": "http://1.2.3.4:80",
    "http://1.2.3.4:4321": "http://1.2.3.4:4321",
    "https://1.2.3.4": "https://1.2.3.4:443",
    "https://1.2.3.4:4321": "https://1.2.3.4:4321",
    "https://example.com/ollama": "https://example.com:443/ollama",
    "https://example.com:11434/ollama/": "https://example.com:11434/ollama",
    "http://": "http://127.0.0.1:80",
    "0.0.0.0": "http://0.0.0.0:11434",
}


@pytest.mark.parametrize(("text", "expected"), OLLAMA_HOSTS.items())
def test_an_address_is_read_as_ollama_reads_it(text, expected):
    assert str(address.parse(text)) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [(":1234", "http://127.0.0.1:1234"), ("0.0.0.0", "http://127.0.0.1:11434"), ("[::]:1", "http://[::1]:1")],
)
def test_a_client_connects_to_loopback_where_a_server_listens_on_all_addresses(text, expected):
    assert str(address.parse(text).to_connect()) == expected


@pytest.mark.parametrize(
    ("host", "expected"),
    [("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("localhost", True), ("", False), ("0.0.0.0", False),
     ("192.168.1.1", False), ("example.com", False), ("::", False)],
)  # fmt: skip
def test_loopback(host, expected):
    assert address.is_loopback(host) is expected
    assert ServerSettings(host=host).is_public is not expected


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("10m", 600), ("1h30m", 5400), ("1.5h", 5400), ("0", 0), ("0s", 0), ("-1s", -1), ("-1m", -60), ("100ms", 0.1),
        ("1us", 1e-6), ("1µs", 1e-6), ("5ns", 5e-9), (".5s", 0.5), ("1.s", 1), ("+2s", 2), ("1h1m1s1ms", 3661.001),
        ("", None), ("5", None), ("1d", None), ("10 m", None), ("m", None), ("1h-1m", None), ("abc", None),
        ("1e3s", None), ("9999999h", None), ("٣s", None),
    ],
)  # fmt: skip
def test_a_duration_is_read_as_go_reads_it(text, seconds):
    assert duration_s(text) == (None if seconds is None else pytest.approx(seconds))


@pytest.mark.parametrize(("text", "seconds"), [("5m", 300), ("300", 300), ("-1", -1), ("0", 0), (" '10s' ", 10)])
def test_keep_alive_takes_bare_seconds_too(text, seconds):
    assert keep_alive(text) == seconds
    assert settings({"keep_alive_s": text}, {}).keep_alive_s == seconds
    assert settings({}, {"Q3E_KEEP_ALIVE": text}).keep_alive_s == seconds
    assert settings({}, {"OLLAMA_KEEP_ALIVE": text}).keep_alive_s == seconds


def test_a_keep_alive_that_cannot_be_read_is_an_error_in_our_variable_and_the_default_in_ollamas():
    with pytest.raises(OptionError, match=r"^keep_alive must be seconds or a duration such as 5m.*, got '1d'$"):
        settings({}, {"Q3E_KEEP_ALIVE": "1d"})
    assert settings({}, {"OLLAMA_KEEP_ALIVE": "1d"}).keep_alive_s == 300


def test_defaults():
    found = settings({}, {})
    assert (found.host, found.port, found.keep_alive_s, found.max_loaded) == ("127.0.0.1", 11434, 300, 2)
    assert (found.max_queue, found.max_items, found.max_body_bytes) == (4096, 2048, 32 << 20)
    assert (found.api_keys, found.origins, found.models, found.unix_socket) == ((), (), (), None)


ALL = {
    "Q3E_HOST": "::1", "Q3E_PORT": "1", "Q3E_MODELS": "a, b", "Q3E_KEEP_ALIVE": "-1", "Q3E_MAX_LOADED": "3",
    "Q3E_API_KEY": "k1,k2", "Q3E_ORIGINS": "https://a.example", "Q3E_MAX_QUEUE": "4", "Q3E_MAX_ITEMS": "5",
    "Q3E_MAX_BODY_BYTES": "6000", "Q3E_UNIX_SOCKET": "s", "Q3E_LOG_FORMAT": "json",
    "Q3E_INDEXES": "notes, papers.q3e",
}  # fmt: skip


def test_every_variable():
    found = settings({}, ALL)
    assert (found.host, found.port, found.models, found.keep_alive_s) == ("::1", 1, ("a", "b"), -1)
    assert (found.max_loaded, found.max_queue, found.max_items, found.max_body_bytes) == (3, 4, 5, 6000)
    assert (found.api_keys, found.origins) == (("k1", "k2"), ("https://a.example",))
    assert found.indexes == ("notes", "papers.q3e")
    assert (str(found.unix_socket), found.log_format) == ("s", "json")


def test_options_come_before_ours_and_ours_before_ollamas():
    environ = {"OLLAMA_HOST": "1.1.1.1:1", "OLLAMA_KEEP_ALIVE": "1s", "OLLAMA_ORIGINS": "http://o"}
    found = settings({}, environ)
    assert (found.host, found.port, found.keep_alive_s, found.origins) == ("1.1.1.1", 1, 1, ("http://o",))
    environ |= {"Q3E_HOST": "2.2.2.2", "Q3E_KEEP_ALIVE": "2s", "Q3E_ORIGINS": "http://q"}
    found = settings({}, environ)
    assert (found.host, found.port, found.keep_alive_s, found.origins) == ("2.2.2.2", 1, 2, ("http://q",))
    found = settings({"host": "3.3.3.3", "port": 0, "keep_alive_s": "3s", "origins": ("http://f",)}, environ)
    assert (found.host, found.port, found.keep_alive_s, found.origins) == ("3.3.3.3", 0, 3, ("http://f",))
    assert settings({"host": None, "models": (), "port": None}, environ) == settings({}, environ)


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({"Q3E_PORT": "x"}, "Q3E_PORT must be a whole number, got 'x'"),
        ({"Q3E_PORT": "70000"}, "port must be between 0 and 65535, got 70000"),
        ({"Q3E_MAX_LOADED": "0"}, "max_loaded must be between 1 and 64, got 0"),
        ({"Q3E_LOG_FORMAT": "xml"}, "log_format must be text or json, got 'xml'"),
        ({"Q3E_API_KEY": "a b"}, "an API key must be printable ASCII without spaces, and not empty"),
    ],
)
def test_an_impossible_value_is_named(environ, said):
    with pytest.raises(OptionError) as caught:
        settings({}, environ)
    assert str(caught.value) == said


def test_keys_are_not_shown():
    assert "secret" not in repr(ServerSettings(api_keys=("secret",)))


def test_aliases_of_the_config_file(tmp_path, monkeypatch):
    monkeypatch.setenv("Q3E_HOME", str(tmp_path))
    assert settings({}, {}).aliases == {}
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "config.toml").write_text(
        '[aliases]\nmy-Legal = {model = "qwen3-embedding:4b", instruction = "Find the law", dim = 256}\n'
        '"small:1" = {model = "demo"}\n'
    )
    assert settings({}, {}).aliases == {
        "my-legal": Alias("qwen3-embedding:4b", "Find the law", None, 256),
        "small:1": Alias("demo"),
    }


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[aliases", " is no TOML: "),
        ("port = 3", ": there is no setting 'port'"),
        ("aliases = 3", ": aliases must be a table"),
        ("[aliases]\nx = 3", ": aliases.x must be a table such as {model ="),
        ('[aliases]\nx = "tiny:1b"', ': aliases.x must be a table such as {model = "tiny:1b", dim = 256}'),
        ("[aliases]\nx = {}", ": aliases.x.model is missing"),
        ("[aliases]\nx = {model = 3}", ": aliases.x.model must be a text that is not empty, got 3"),
        ('[aliases]\nx = {model = ""}', ": aliases.x.model must be a text that is not empty, got ''"),
        ('[aliases]\nx = {model = "X"}', ": aliases.x.model is the alias itself"),
        ('[aliases]\nx = {model = "m", dims = 3}', ": aliases.x: there is no key 'dims'"),
        ('[aliases]\nx = {model = "m", dim = true}', ": aliases.x.dim must be a whole number, got True"),
        ('[aliases]\nx = {model = "m", dim = 3}', ": aliases.x.dim must be 32 or more, got 3"),
        ('[aliases]\nx = {model = "m", task = "cooking"}', ": aliases.x.task must be one of retrieval, "),
        ('[aliases]\nx = {model = "m", task = "code", instruction = "i"}', ": aliases.x has an instruction and a"),
        ('[aliases]\n"a b" = {model = "m"}', ": aliases.a b is no model name"),
    ],
)
def test_a_malformed_config_file_is_an_error_with_file_and_key(content, said, tmp_path):
    path = tmp_path / "config.toml"
    path.write_text(content)
    with pytest.raises(OptionError) as caught:
        read_aliases(path)
    assert str(path) + said in str(caught.value)
