"""The log and the metrics of a server: a line and a count for each request, and no text and no key."""

from __future__ import annotations

import http.client
import json
import re

from paths import ROOT
from server_process import KEY, PATIENCE_S, running_server

from q3e_local.server.http import metrics


def test_the_log_has_a_line_a_request_and_no_text_and_no_key(server):
    server.embed("a very private text")
    server.ask("GET", "/api/tags%0a%1b[31m?secret=1", headers=KEY)
    assert server.wait_for("POST /api/embed 200 ").endswith(" tokens")
    assert server.wait_for("GET /api/tags%0a%1b[31m 404 ")
    log = "\n".join(line for line in server.lines if not line.startswith("try: "))
    assert not any(word in log for word in ("private", "secret", "Bearer"))


def test_metrics_count_requests_texts_and_tokens(server):
    def metrics_text() -> str:
        return server.ask("GET", "/metrics", headers=KEY)[2].decode()

    def value(name: str) -> float:
        return sum(float(line.split()[-1]) for line in metrics_text().splitlines() if line.startswith(name))

    requests = 'q3e_requests_total{method="POST",route="/api/embed",status="200"}'
    names = ("q3e_texts_total", "q3e_tokens_total", requests)
    before = [value(name) for name in names]
    server.ask("POST", "/api/embed", {"model": "demo", "input": ["abc", "de"]}, KEY)
    assert [value(name) for name in names] == [before[0] + 2, before[1] + 7, before[2] + 1]
    assert value("q3e_loaded_models") == 1
    assert value("q3e_worker_restarts_total") == 0
    docs = (ROOT / "docs" / "server.md").read_text(encoding="utf-8")
    names = re.findall(r"^# TYPE (\S+(?<!_created)) ", metrics_text(), re.MULTILINE)
    # The service of this server is a fake, whose counters are not all there.
    names += [f"{name}_total" for name, _ in metrics._COUNTERS.values()]
    assert [name for name in names if f"`{name}`" not in docs] == []
    for unknown in ("/nowhere", "/nowhere/else"):
        server.ask("GET", unknown, headers=KEY)
    assert "nowhere" not in metrics_text()
    assert server.ask("GET", "/metrics")[0] == 401


def test_a_json_log_is_json_throughout():
    with running_server(log_format="json", models=["demo"]) as running:
        line = json.loads(running.wait_for('"listening"'))
        port = int(line["address"].rpartition(":")[2])
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
        connection.request("POST", "/api/embed", json.dumps({"model": "demo", "input": "hello"}))
        assert connection.getresponse().status == 200
        connection.close()
        found = json.loads(running.wait_for('"/api/embed"'))
        assert (found["method"], found["status"], found["n_texts"], found["n_tokens"]) == ("POST", 200, 1, 6)
        assert found["milliseconds"] > 0
        running.end()
        for line in running.lines:
            if line != "service closed":
                assert json.loads(line)["level"] in ("info", "warning")
