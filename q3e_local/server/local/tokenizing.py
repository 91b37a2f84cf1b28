"""A request's inputs to the ids that are decoded, and ids to text, never so much at once that other requests wait.

Knows texts, terms and a model's tokenizer; nothing of batches. Each step runs on the model's thread and then lets the
steps of other requests in.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from q3e_local.embedding.cutting import FAR, PIECE, Cutter
from q3e_local.embedding.request import Fitted, Terms
from q3e_local.errors import InvalidTextError, TextTooLongError
from q3e_local.server.workers.loaded_models import Model

Inputs = tuple[str | tuple[int, ...], ...]

# Characters tokenized in one go: about 20 ms. A text that is longer goes in pieces.
_SLICE = 100_000
# The most tokens of a text whose ids or count a request asks for: the ids are about 6 MB of JSON.
TOKENS_MAX = 1 << 20
# The last tokens before a cut inside a word differ from those of the uncut text, so this many are left out.
_UNSURE = 1_000

# Token ids whose text is written in one go: about 10 ms.
_IDS_AT_ONCE = 1 << 14
# The ids behind those that are looked at for the beginning of a character.
_SEAM = 16


async def fitted(model: Model, inputs: Inputs, terms: Terms) -> list[Fitted]:
    """What is decoded for each input. Raises TextError with its place.

    Of a huge text no more is tokenized than `terms.limit` needs, whether it is cut there or refused.
    """
    _hold_ids_to_limit(inputs, terms, model.worker.eos_id)
    done: list[Fitted] = []
    for first, some in _slices(inputs, len(terms.prefix)):
        if _is_huge(some[0]):
            done.append(await _huge(model, some[0], first, terms))
        else:
            done += await model.call(_ids, model, some, first, terms)
    return done


async def whole(model: Model, text: str, prefix: str = "") -> list[int]:
    """All ids of a text with this prefix before it, without the end token.

    Raises InvalidTextError, for more than TOKENS_MAX of them too.
    """
    await model.call(model.embedder.check_text, text, 0)
    ids, _ = await _in_pieces(model, prefix + text, None)
    return ids


async def counts(model: Model, texts: tuple[str, ...]) -> list[int]:
    """How many ids each text has, without an instruction and an end token. Raises TextError with its place."""
    found: list[int] = []
    for first, some in _slices(texts, 0):
        if _is_huge(some[0]):
            try:
                found.append(len(await whole(model, texts[first])))
            except InvalidTextError as error:
                raise InvalidTextError(error.message, first) from None
        else:
            found += await model.call(_lengths, model, texts[first : first + len(some)], first)
    return found


async def text_of(model: Model, ids: list[int]) -> str:
    """The text of these ids, special tokens written out; bytes that are no UTF-8 become U+FFFD."""
    parts: list[str] = []
    start = 0
    while start < len(ids):
        end, text = await model.call(_next_text, model, ids, start)
        parts.append(text)
        start = end
    return "".join(parts)


def foreign(ids: Sequence[int], n_vocab: int) -> int | None:
    """An id that is not in the vocabulary, if there is one: llama.cpp would end its process over it."""
    low, high = min(ids, default=0), max(ids, default=0)
    return low if low < 0 else high if high >= n_vocab else None


def _next_text(model: Model, ids: list[int], start: int) -> tuple[int, str]:
    """Where a run of about _IDS_AT_ONCE ids from `start` ends, and its text. Runs on a thread.

    The ids behind the run begin a character, as each run is decoded from UTF-8 by itself.
    """
    end = start + _IDS_AT_ONCE
    behind = ids[end : end + _SEAM]
    # subtle: after so many bytes that only continue a character none of them belongs to one, so any end is right.
    begins = (place for place, piece in enumerate(model.worker.pieces(behind)) if piece and piece[0] & 0xC0 != 0x80)
    end += next(begins, len(behind)) if behind else 0
    return end, model.worker.detokenize(ids[start:end])


def _hold_ids_to_limit(inputs: Inputs, terms: Terms, eos_id: int) -> None:
    """Refuse ids that are too many, before anything is tokenized."""
    if terms.truncate:
        return
    for place, one in enumerate(inputs):
        if not isinstance(one, str):
            n_tokens = len(one) + (one[-1:] != (eos_id,))
            if n_tokens > terms.limit:
                raise TextTooLongError(
                    f"has {n_tokens} tokens, the limit is {terms.limit}; truncate it or split it", place
                )


def _is_huge(one: str | tuple[int, ...]) -> bool:
    return isinstance(one, str) and len(one) > _SLICE


def _slices(inputs: Inputs, n_prefix: int) -> Iterator[tuple[int, Inputs]]:
    """The inputs in runs of about _SLICE characters, a huge one by itself, each with the place of its first.

    `n_prefix` characters come before each.
    """
    first = size = 0
    for place, one in enumerate(inputs):
        if _is_huge(one) and first < place:
            yield first, inputs[first:place]
            first, size = place, 0
        size += n_prefix + len(one)
        if size >= _SLICE:
            yield first, inputs[first : place + 1]
            first, size = place + 1, 0
    if first < len(inputs):
        yield first, inputs[first:]


def _ids(model: Model, inputs: Inputs, first: int, terms: Terms) -> list[Fitted]:
    """What is decoded for each input; the inputs begin at place `first`. Runs on a thread."""
    embedder, worker = model.embedder, model.worker
    # The instruction first: one trip to the worker for all.
    texts = [embedder.readied("", 0, terms)] if terms.prefix else []
    texts += [embedder.readied(one, first + place, terms) for place, one in enumerate(inputs) if isinstance(one, str)]
    of_texts = iter(worker.tokenize_all(texts) if texts else [])
    prefix = next(of_texts) if terms.prefix else []
    fitted = []
    for place, one in enumerate(inputs, first):
        if isinstance(one, str):
            ids = next(of_texts)
        else:
            wrong = foreign(one, worker.n_vocab)
            if wrong is not None:
                raise InvalidTextError(f"token id {wrong} is not in the vocabulary of {worker.n_vocab}", place)
            ids = [*prefix, *(one[:-1] if one and one[-1] == worker.eos_id else one)]
        fitted.append(embedder.fitted(ids, place, terms, prefix))
    return fitted


def _lengths(model: Model, texts: tuple[str, ...], first: int) -> list[int]:
    """How many ids each text has; the texts begin at place `first`. Runs on a thread."""
    for place, text in enumerate(texts, first):
        model.embedder.check_text(text, place)
    return [len(ids) for ids in model.worker.tokenize_all([model.embedder.normalized(text) for text in texts])]


async def _huge(model: Model, text: str | tuple[int, ...], place: int, terms: Terms) -> Fitted:
    assert isinstance(text, str)
    await model.call(model.embedder.check_text, text, place)
    ids, is_all = await _in_pieces(model, terms.prefix + text, terms.limit)
    if not is_all and not terms.truncate:
        raise TextTooLongError(
            f"has more than {len(ids)} tokens, the limit is {terms.limit}; truncate it or split it", place
        )
    prefix = await model.call(_tokenized, model, terms.prefix) if terms.prefix else []
    return model.embedder.fitted(ids, place, terms, prefix)


async def _in_pieces(model: Model, text: str, limit: int | None) -> tuple[list[int], bool]:
    """The ids, at least `limit` of them where there are so many, and whether they are all."""
    cutter = Cutter(model.worker.added_tokens)
    ids: list[int] = []
    start = 0
    while start < len(text):
        if limit is not None and len(ids) >= limit:
            return ids, False
        if len(ids) > TOKENS_MAX:
            raise InvalidTextError(f"has more than {TOKENS_MAX} tokens; split it")
        end = cutter.end(text, start)
        if end is None and limit is not None:
            some, is_all = await _of_run(model, text, start, limit - len(ids))
            return ids + some, is_all
        if end is None:
            raise InvalidTextError(
                f"has {FAR} characters in a row without a space or a mark where it could be parted"
            )
        ids += await model.call(_tokenized, model, text[start:end])
        start = end
    return ids, True


async def _of_run(model: Model, text: str, start: int, needed: int) -> tuple[list[int], bool]:
    """The first `needed` ids or more of the text from `start`, which cannot be parted near there."""
    size = max(PIECE, 2 * needed)
    while True:
        ids = await model.call(_tokenized, model, text[start : start + size])
        if start + size >= len(text):
            return ids, True
        if len(ids) >= needed + _UNSURE:
            return ids[:-_UNSURE], False
        size *= 2


def _tokenized(model: Model, text: str) -> list[int]:
    return model.worker.tokenize(model.embedder.normalized(text))
