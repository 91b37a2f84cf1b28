"""Several servers at once, each a fake that a test slows down, stops or breaks."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

import numpy as np
from fake_service import FakeService, served, vector

from q3e_local.embedding.request import Embedded
from q3e_local.errors import TextError
from q3e_local.server.service import ServiceRequest, ServiceResult

# Of 71 to 90 ids; the fake takes 100. Neighbours differ in their length and their last digit, which the vectors show.
TEXTS = [f"{'a text':{64 + n % 20}} {n:05}" for n in range(1200)]

Before = Callable[[ServiceRequest], Awaitable[None]]


class Machine(FakeService):
    """A fake whose `embed` first waits for `before(request)`, which may raise. `embedded` has the texts that came."""

    def __init__(self, before: Before | None = None, digest: str = "fake") -> None:
        self.before, self.digest = before, digest
        super().__init__()

    @property
    def embedded(self) -> list[str]:
        return [text for request in self.requests if isinstance(request, ServiceRequest) for text in request.inputs]

    async def embed(self, request: ServiceRequest) -> ServiceResult:
        if self.before is not None:
            self.requests.append(request)
            await self.before(request)
            self.requests.remove(request)
        return await super().embed(request)


@contextmanager
def machines(*services: FakeService, **settings: object) -> Iterator[list[str]]:
    """Servers with these services: their addresses."""
    with ExitStack() as stack:
        yield [str(stack.enter_context(served(service, **settings)).base_url).rstrip("/") for service in services]


def assert_all_there(texts: Sequence[str], results: Sequence[Embedded | TextError]) -> None:
    """Each text has its own vector, in the order of the texts, once."""
    assert len(results) == len(texts)
    wanted = np.array([vector(text.encode()[-1], len(text.encode()) + 1) for text in texts], np.float32)
    np.testing.assert_allclose(np.stack([result.vector for result in results]), wanted, rtol=1e-6)
