"""A stand-in for Qdrant's server, which no package brings: the part of its REST API that an export needs.

What a request says is checked by the client's own models, and done by its local mode in memory.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from qdrant_client import QdrantClient, models

KEY = "k%y"  # that requests have to bring


class Stand:
    """The server's address, and the client that has its collections."""

    def __init__(self) -> None:
        self.client = QdrantClient(":memory:")
        self.port = 0
        self.indexed: list[str] = []  # fields of payloads
        self.keeps_metadata = True  # of collections, which servers before 1.16 do not

    def answer(self, method: str, path: list[str], body: dict[str, Any]) -> Any:
        name, rest = path[1], "/".join(path[2:])
        client = self.client
        match method, rest:
            case "GET", "exists":
                return {"exists": client.collection_exists(name)}
            case "GET", "":
                return client.get_collection(name).model_dump(mode="json")
            case "PUT", "":
                wanted = models.CreateCollection.model_validate(body)
                metadata = wanted.metadata if self.keeps_metadata else None
                client.create_collection(name, vectors_config=wanted.vectors, metadata=metadata)
                return True
            case "DELETE", "":
                return client.delete_collection(name)
            case "PUT", "index":
                self.indexed.append(models.CreateFieldIndex.model_validate(body).field_name)
            case "PUT", "points":
                client.upsert(name, models.PointsBatch.model_validate(body).batch)
            case "POST", "points/delete":
                client.delete(name, models.PointIdsList.model_validate(body).points)
            case "POST", "points":
                wanted = models.PointRequest.model_validate(body)
                points = client.retrieve(name, wanted.ids, with_payload=wanted.with_payload)
                return [point.model_dump(mode="json") for point in points]
            case "POST", "points/scroll":
                wanted = models.ScrollRequest.model_validate(body)
                points, place = client.scroll(
                    name, wanted.filter, limit=wanted.limit, offset=wanted.offset, with_payload=wanted.with_payload
                )
                found = [point.model_dump(mode="json") for point in points]
                return {"points": found, "next_page_offset": place}
            case _:
                raise AssertionError(f"{method} {path} is not in the stand-in")
        return {"operation_id": 1, "status": "completed"}


@contextmanager
def stand_in() -> Iterator[Stand]:
    """The stand-in, listening on loopback until the block ends."""
    stand = Stand()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _do(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if self.headers.get("api-key") != KEY:
                status, fields = 401, {"status": {"error": "Must provide an API key"}, "time": 0.0}
            else:
                path = self.path.partition("?")[0].strip("/").split("/")
                result = stand.answer(self.command, path, json.loads(body or b"{}"))
                status, fields = 200, {"result": result, "status": "ok", "time": 0.0}
            data = json.dumps(fields).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_PUT = do_POST = do_DELETE = _do

        def log_message(self, *arguments: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    stand.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield stand
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
