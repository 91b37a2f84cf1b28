"""Embed on several running servers at once: `Fleet`, a TextModel that computes nothing.

Knows that all servers must make the same vectors, and which of them can be used; leaves sharing texts out to
`sharing`, and what a server is asked to its RemoteEmbedder.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from q3e_local.embedding.preparing import ResolvedOptions
from q3e_local.embedding.request import Embedded, EmbedRequest
from q3e_local.embedding.stream import Progress
from q3e_local.embedding.text_model import TextModel
from q3e_local.errors import ModelError, OptionError, Q3EError, SpaceMismatchError, TextError
from q3e_local.remote import roll_call
from q3e_local.remote.connection import Cancellation, ServerRefusedError, ServerUnreachableError
from q3e_local.remote.embedder import Facts
from q3e_local.remote.member import Member, is_busy
from q3e_local.remote.sharing import Sharing
from q3e_local.remote.tokens import TokenCounts
from q3e_local.remote.window_size import TEXTS_MAX

logger = logging.getLogger(__name__)


class Fleet(TextModel):
    """The same model on several servers, by the name it has there. Usable from several threads; close it when done.

    Before the first text all servers must say that their vectors are of one space. One that cannot be reached is left
    out, and a warning is logged, as long as others are there; a call a minute later tries it again. Its calls raise
    what RemoteEmbedder's raise, and SpaceMismatchError.
    """

    def __init__(self, addresses: Sequence[str], model: str) -> None:
        """Raises OptionError for what is no address, and for a server that is there twice."""
        self.model = model
        self._lock = threading.RLock()  # of what is known of the members
        self._members: list[Member] = []
        self._agreed: dict[EmbedRequest, Facts] = {}
        self._counts: TokenCounts | None = None
        self._at_work: set[Sharing[Embedded | TextError]] = set()
        for address in addresses:
            member = Member(address, model)
            self._members.append(member)
            if member.name in [other.name for other in self._members[:-1]]:
                self.close()
                raise OptionError(f"the server {member.name} is named twice; name each server once")

    def __repr__(self) -> str:
        return f"<Fleet {self.model} on {', '.join(member.name for member in self._members)}>"

    @property
    def n_texts_by_server(self) -> Mapping[str, int]:
        """How many texts each server embedded so far."""
        return {member.name: member.n_texts for member in self._members}

    @property
    def loads_as(self) -> str:
        """The model's full name on the servers."""
        return self._facts().model

    @property
    def n_embd(self) -> int:
        return self._facts().n_embd

    @property
    def n_ctx_max(self) -> int:
        return self._facts().n_ctx_max

    @property
    def digest(self) -> str:
        return self._facts().digest

    def resolve(self, request: EmbedRequest) -> ResolvedOptions:
        return self._facts(request).resolved

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        return self._counter().count(texts)

    def expect_counts(self, texts: Iterable[str]) -> None:
        """Ask the servers ahead for what these texts need, in as few requests as their limits allow."""
        self._counter().expect(texts)

    def close(self) -> None:
        """End what is at work, and hang up; the servers keep their models."""
        for sharing in [*self._at_work]:
            sharing.stop()
        for member in self._members:
            member.close()

    def _facts(self, request: EmbedRequest = EmbedRequest(())) -> Facts:  # noqa: B008 (frozen)
        """What all servers say alike about the model and these options. Each is asked for once."""
        key = replace(request, texts=())
        if key not in self._agreed:
            self._agreed[key] = self._agree(key)
            self.model = self._agreed[key].model
        return self._agreed[key]

    def _agree(self, request: EmbedRequest) -> Facts:
        """Ask all servers. Raises SpaceMismatchError, what one refuses, and where none is there the last error.

        A server that is late does its part all the same: each answer says which space its vectors are of.
        """
        answers = roll_call.roll_call(
            self._usable(), lambda member, cancellation: member.embedder.facts(request, cancellation)
        )
        for member, answer in answers:
            if isinstance(answer, OptionError):
                raise answer if answer.option else OptionError(f"{member.name}: {answer}")
            if isinstance(answer, ModelError):
                raise type(answer)(f"{member.name} cannot be used: {answer}")
            if isinstance(answer, ServerRefusedError) and answer.status < 500 and not is_busy(answer):
                raise answer
        found = [(member, answer) for member, answer in answers if isinstance(answer, Facts)]
        failed = [(member, answer) for member, answer in answers if isinstance(answer, Q3EError)]
        if not found:
            raise ServerUnreachableError(f"none of the {len(answers)} servers can be used: {failed[-1][1]}")
        first, facts = found[0]
        for member, others in found[1:]:
            if others.resolved.space != facts.resolved.space:
                raise SpaceMismatchError(
                    f"the servers make different vectors: {first.name} those of the space {facts.resolved.space}, "
                    f"{member.name} those of {others.resolved.space}; let all have the same file of the model"
                )
        for member in (member for member, answer in answers if answer is None):
            logger.warning("%s has not answered for %.0f s: the others begin", member.name, roll_call.LATE_S)
        for member, error in failed:
            with self._lock:
                member.leave_out(error)
            logger.warning("%s", member.failure)
        return replace(facts, max_items=min(others.max_items for _, others in found))

    def _usable(self) -> list[Member]:
        """The servers that were not left out lately; all, where there are no others."""
        with self._lock:
            return [member for member in self._members if not member.is_left_out] or self._members

    def _stream(
        self, request: EmbedRequest, resolved: ResolvedOptions, progress: Progress | None
    ) -> Iterator[Embedded | TextError]:
        def embed(
            member: Member, texts: list[str], first: int, cancellation: Cancellation
        ) -> list[Embedded | TextError]:
            return member.embedder.embed_window(texts, request, resolved.space, first, cancellation)

        n_texts = n_tokens = 0
        sharing = Sharing(self._usable(), embed, lambda member: member.embedding, TEXTS_MAX, self._lock)
        self._at_work.add(sharing)
        try:
            for results in sharing.run(request.texts):
                n_texts += len(results)
                n_tokens += sum(result.prompt_tokens for result in results if isinstance(result, Embedded))
                yield from results
                if progress is not None:  # after the results, which an exception that it raises must not lose
                    progress(n_texts, n_tokens)
        finally:
            self._at_work.discard(sharing)
            with self._lock:
                for member, n_done in sharing.n_done.items():
                    member.n_texts += n_done

    def _counter(self) -> TokenCounts:
        if self._counts is None:
            facts = self._facts()
            self._counts = TokenCounts(self._count_pieces, facts.added_tokens, facts.max_items * len(self._members))
        return self._counts

    def _count_pieces(self, texts: list[str]) -> list[int]:
        """How many tokens each text has, without an end token."""

        def count(member: Member, texts: list[str], first: int, cancellation: Cancellation) -> list[int]:
            return member.counter.count_pieces(texts, cancellation)

        texts_max = self._facts().max_items
        sharing = Sharing(self._usable(), count, lambda member: member.counting, texts_max, self._lock)
        return [n_tokens for counts in sharing.run(texts) for n_tokens in counts]
