"""The checks that every request passes: host, origin, key, size and time. In this process, on a bare ASGI app."""

from __future__ import annotations

import asyncio
import json
import socket

import pytest

from q3e_local.server.app import refusal_body
from q3e_local.server.http.guard import Guard
from q3e_local.server.settings import ServerSettings


class App:
    """Answers 200 with the body it was sent."""

    def __init__(self):
        self.calls = 0

    async def __call__(self, scope, receive, send):
        self.calls += 1
        body = b""
        if scope["method"] == "POST":
            message = await receive()
            assert not message.get("more_body")
            body = message["body"]
        await send({"type": "http.response.start", "status": 200, "headers": [(b"x-q3e-space", b"s")]})
        await send({"type": "http.response.body", "body": body})


class Answer:
    def __init__(self, sent):
        self.status = sent[0]["status"]
        self.headers = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
        self.body = b"".join(message.get("body", b"") for message in sent[1:])
        self.is_whole = not sent[-1].get("more_body", False)

    @property
    def error(self):
        return json.loads(self.body)["error"]


def guard(app=None, **options):
    inner = {name: options.pop(name) for name in ("idle_s", "max_held_bytes") if name in options}
    return Guard(app or App(), ServerSettings(**options), refusal_body, **inner)


def ask(guard, path="/api/embed", method="POST", body=(b"{}",), host="127.0.0.1:11434", headers=(), announce=True):
    """The answer to a request whose body comes in pieces; a None among the pieces is a client that went away."""
    raw = [(b"host", host.encode())] if host is not None else []
    if body and announce:
        raw.append((b"content-length", str(sum(len(part or b"") for part in body)).encode()))
    elif body:
        raw.append((b"transfer-encoding", b"chunked"))
    raw += [(name.lower().encode(), value.encode()) for name, value in headers]
    parts = list(body)

    async def receive():
        if not parts:
            await asyncio.sleep(3600)
        part = parts.pop(0)
        if part is None:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": part, "more_body": bool(parts)}

    return asyncio.run(answered(guard, receive, method, path, raw))


async def answered(guard, receive, method="POST", path="/api/embed", raw=((b"content-length", b"99"),)):
    """The answer to a request whose body `receive` brings; None without an answer."""
    scope = {
        "type": "http", "method": method, "path": path, "raw_path": path.encode(), "headers": raw,
        "server": ("127.0.0.1", 11434), "client": ("127.0.0.1", 1),
    }  # fmt: skip
    sent = []

    async def send(message):
        sent.append(message)

    await guard(scope, receive, send)
    return Answer(sent) if sent else None


def get(guard, path="/api/tags", **options):
    return ask(guard, path, "GET", (), **options)


# ollama server/routes_test.go, and allowedHostsMiddleware in server/routes.go
@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200), ("localhost:11434", 200), ("LocalHost:1", 200), ("127.0.0.1", 200), ("127.0.0.2:9", 200),
        ("[::1]:11434", 200), ("0.0.0.0:1", 200), ("192.168.1.7", 200), ("10.0.0.1:80", 200), ("", 200),
        (socket.gethostname(), 200), ("me.localhost", 200), ("laptop.local:11434", 200),
        ("host.docker.internal", 200), ("::1", 200),
        ("evil.example", 403), ("evil.example:11434", 403), ("localhost.evil.example", 403), ("8.8.8.8", 403),
        ("127.0.0.1.evil.example", 403), ("evillocalhost", 403), ("[2001:4860:4860::8888]:80", 403),
        ("localhost@evil.example", 403), ("1.2.3.4:80:80", 403), ("evil.example.:80", 403),
    ],
)  # fmt: skip
def test_the_host_header_is_checked_against_rebinding(host, status):
    app = App()
    assert get(guard(app), host=host).status == status
    assert app.calls == (status == 200)


def test_a_request_without_a_host_header_passes_and_one_with_two_does_not():
    assert get(guard(), host=None).status == 200
    assert get(guard(), headers=[("Host", "evil.example")]).status == 400


def test_no_host_check_on_a_public_address_or_a_unix_socket(tmp_path):
    assert get(guard(host="0.0.0.0"), host="my.example").status == 200
    assert get(guard(unix_socket=tmp_path / "s"), host="whatever").status == 200


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        ("http://localhost", True), ("https://localhost:3000", True), ("http://127.0.0.1:8080", True),
        ("http://0.0.0.0", True), ("app://obsidian.md", True), ("file://", True), ("tauri://localhost", True),
        ("vscode-webview://abc", True), ("vscode-file://vscode-app", True), ("HTTP://LOCALHOST:3000", True),
        ("https://ui.example", True), ("https://a.b.example", True), ("moz-extension://12-34", True),
        ("http://ui.example", False), ("https://evil.example", False), ("null", False), ("https://b.example", False),
        ("http://localhost.evil.example", False), ("https://ui.example.evil.example", False), ("x", False),
    ],
)  # fmt: skip
@pytest.mark.parametrize("method", ["POST", "OPTIONS"])
def test_origins_of_web_pages(origin, allowed, method):
    app = App()
    its = guard(app, origins=("https://ui.example", "https://*.b.example", "moz-extension://*"))
    headers = [("Origin", origin), ("Access-Control-Request-Method", "POST")]
    answer = ask(its, method=method, body=(b"{}",) if method == "POST" else (), headers=headers)
    if not allowed:
        assert (answer.status, app.calls) == (403, 0)
        assert "access-control-allow-origin" not in answer.headers
        return
    assert answer.status == (200 if method == "POST" else 204)
    assert answer.headers["access-control-allow-origin"] == origin
    assert answer.headers["vary"] == "Origin"
    assert app.calls == (method == "POST")


def test_a_star_allows_every_origin():
    assert get(guard(origins=("*",)), headers=[("Origin", "https://evil.example")]).status == 200


def test_a_preflight_lets_the_openai_sdk_send_its_headers():
    wanted = (
        "authorization,content-type,openai-beta,openai-organization,x-stainless-arch,x-stainless-async,"
        "x-stainless-helper-method,x-stainless-lang,x-stainless-os,x-stainless-package-version,"
        "x-stainless-retry-count,x-stainless-runtime,x-stainless-runtime-version,x-stainless-timeout,x-api-key"
    )
    headers = [
        ("Origin", "http://localhost:3000"),
        ("Access-Control-Request-Method", "POST"),
        ("Access-Control-Request-Headers", wanted),
    ]
    answer = ask(guard(api_keys=("k",)), "/v1/embeddings", "OPTIONS", (), headers=headers)
    assert answer.status == 204
    assert answer.headers["access-control-allow-headers"] == wanted
    assert "POST" in answer.headers["access-control-allow-methods"]


def test_a_preflight_does_not_repeat_what_is_no_header_name():
    headers = [("Origin", "http://localhost"), ("Access-Control-Request-Method", "GET")]
    headers.append(("Access-Control-Request-Headers", 'a"; b=<c>'))
    assert ask(guard(), "/", "OPTIONS", (), headers=headers).headers["access-control-allow-headers"] == "*"


def test_a_page_of_this_server_may_use_it_unless_its_name_was_rebound():
    public = guard(host="0.0.0.0")
    same = [("Origin", "http://192.168.1.7:11434")]
    assert ask(public, host="192.168.1.7:11434", headers=same).status == 200
    rebound = [("Origin", "http://evil.example:11434")]
    assert ask(public, host="evil.example:11434", headers=rebound).status == 403


def test_options_without_an_origin():
    assert ask(guard(), "/api/embed", "OPTIONS", ()).status == 204


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ([("Authorization", "Bearer key-one")], 200), ([("authorization", "bearer key-two")], 200),
        ([("X-Api-Key", "key-two")], 200), ([("Authorization", "Bearer wrong"), ("X-Api-Key", "key-one")], 200),
        ([], 401), ([("Authorization", "Bearer key")], 401), ([("Authorization", "Bearer ")], 401),
        ([("Authorization", "Basic key-one")], 401), ([("Authorization", "key-one")], 401),
        ([("X-Api-Key", "")], 401), ([("X-Api-Key", "key-one ,")], 401),
    ],
)  # fmt: skip
def test_keys(headers, status):
    answer = get(guard(api_keys=("key-one", "key-two")), headers=headers)
    assert answer.status == status


@pytest.mark.parametrize(("path", "status"), [("/health", 200), ("/v1/health", 200), ("/", 401), ("/metrics", 401)])
def test_only_the_health_of_the_server_is_open(path, status):
    assert get(guard(api_keys=("k",)), path).status == status


def test_without_keys_any_key_is_fine():
    assert get(guard(), headers=[("Authorization", "Bearer ollama")]).status == 200


@pytest.mark.parametrize("announce", [True, False])
@pytest.mark.parametrize(("size", "status"), [(1024, 200), (1025, 413)])
def test_the_size_of_a_body(size, status, announce):
    app = App()
    parts = (b"x" * 1000, b"y" * (size - 1000))
    answer = ask(guard(app, max_body_bytes=1024), body=parts, announce=announce)
    assert (answer.status, app.calls) == (status, status == 200)
    if status == 200:
        assert answer.body == b"".join(parts)
    else:
        assert answer.error == "the request body is larger than 1024 bytes"
        assert answer.headers["connection"] == "close"


@pytest.mark.parametrize("pauses_s", [[0, 3600], [0.01] * 10_000], ids=["stalls", "trickles"])
async def test_a_body_that_comes_too_slowly_is_answered_408(pauses_s):
    """The rest never comes; or each byte comes in time, and all of them for ever."""
    app = App()
    its = guard(app, idle_s=0.05)
    pauses = iter(pauses_s)

    async def receive():
        await asyncio.sleep(next(pauses))
        return {"type": "http.request", "body": b"x", "more_body": True}

    answer = await answered(its, receive)
    assert (answer.status, app.calls, len(its.running)) == (408, 0, 0)


def test_a_client_that_leaves_amid_its_body_reaches_no_route():
    app = App()
    its = guard(app, max_held_bytes=100)
    assert ask(its, body=(b"{", None)) is None
    assert (app.calls, len(its.running)) == (0, 0)
    assert ask(its, body=(b"x" * 100,)).status == 200  # its bytes are not held any more


def test_all_bodies_together_are_bounded():
    its = guard(max_held_bytes=100)
    answer = ask(its, "/v1/embeddings", body=(b"x" * 101, None))
    assert (answer.status, answer.headers["retry-after"]) == (503, "5")
    for _ in range(2):  # the bytes of a request that is over do not count
        assert ask(its, body=(b"x" * 100,)).status == 200


def test_a_request_whose_app_fails_gives_its_place_back():
    async def broken(scope, receive, send):
        raise ZeroDivisionError

    its = guard(broken, max_held_bytes=2)
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            ask(its, body=(b"{}",))
    assert len(its.running) == 0


STOPPING = "the server is stopping"
OPENAI = {"message": STOPPING, "type": "server_error", "param": None, "code": None}
LLAMA_SERVER = {"code": 503, "message": STOPPING, "type": "unavailable_error"}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/embed", {"error": STOPPING}),
        ("/", {"error": STOPPING}),
        ("/v1/embeddings", {"error": OPENAI}),
        ("/embed", {"error": STOPPING, "error_type": "Unhealthy"}),
        ("/embedding", {"error": LLAMA_SERVER}),
        ("/health", {"error": LLAMA_SERVER}),
    ],
)
def test_a_stopping_server_refuses_in_the_dialect_of_the_path(path, body):
    app = App()
    its = guard(app)
    its.stopping = True
    answer = ask(its, path)
    assert (answer.status, app.calls) == (503, 0)
    assert answer.headers["retry-after"] == "5"
    assert answer.headers["connection"] == "close"
    assert json.loads(answer.body) == body


@pytest.mark.parametrize(
    ("kind", "end"),
    [("application/x-ndjson", b'{"error":"the server is stopping, and this request was not finished"}\n'),
     ("application/json", b"")],
)  # fmt: skip
async def test_an_answer_in_lines_that_is_given_up_ends_with_the_error_and_another_is_left_alone(kind, end):
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def app(scope, receive, send):
        headers = [(b"content-type", kind.encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b'{"a":1}\n', "more_body": True})
        begun.set()
        await go_on.wait()
        await send({"type": "http.response.body", "body": b""})

    its = guard(app)
    task = asyncio.create_task(answered(its, None, path="/api/pull", raw=[(b"host", b"localhost")]))
    await begun.wait()
    its.running.give_up()
    await asyncio.sleep(0)
    go_on.set()
    answer = await task
    assert (answer.body, answer.is_whole, len(its.running)) == (b'{"a":1}\n' + end, True, 0)
