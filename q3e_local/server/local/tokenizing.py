"""A request's inputs to the ids that are decoded, and ids to text, never so much at once that other requests wait.

Knows inputs, prompts and limits, and a model's tokenizer; nothing of batches. Each step runs on the model's thread,
and between two steps other requests have their turn.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from q3e_local.embedding.cutting import FAR, PIECE, Cutter
from q3e_local.embedding.preparing import Fitted, Preparation, ResolvedOptions, check_text
from q3e_local.errors import InvalidTextError, TextTooLongError
from q3e_local.server.workers.model import Model
from q3e_local.server.workers.worker import WorkerEngine

Input = str | tuple[int, ...]
"""A text, or token ids."""
Parts = Callable[[str], list[str]]
SomeInput = TypeVar("SomeInput", bound=Input)

# Characters tokenized at once: about 20 ms. A longer text is tokenized in pieces.
_SLICE = 100_000
# The most tokens of a text whose ids or count a request asks for: the ids are about 6 MB of JSON.
TOKENS_MAX = 1 << 20
# The last tokens before a cut inside a word may differ from those of the uncut text, so this many are left out.
_UNSURE = 1_000

# Token ids whose text is written at once: about 10 ms.
_IDS_AT_ONCE = 1 << 14
# Ids behind these, among which the beginning of a character is looked for.
_SEAM = 16


async def fitted(model: Model, preparation: Preparation, inputs: Sequence[tuple[int, Input]]) -> list[Fitted]:
    """The ids to decode for each input. Inputs come with their places in the request. Raises TextError.

    Of a huge text no more is tokenized than the request's limit needs, whether the text is cut there or refused.
    """
    _hold_ids_to_limit(inputs, preparation.resolved, model.worker.eos_id)
    all_fitted: list[Fitted] = []
    for part in _parts(inputs, len(preparation.resolved.prefix)):
        if _is_huge(part[0][1]):
            all_fitted.append(await _huge(model, preparation, *part[0]))
        else:
            all_fitted += await model.call(_fitted_part, model, preparation, part)
    return all_fitted


async def whole(model: Model, text: str, prefix: str = "") -> list[int]:
    """All ids of a text with this prefix before it, without the end token.

    Raises InvalidTextError, also for more than TOKENS_MAX ids.
    """
    await model.call(check_text, text, 0)
    ids, _ = await _in_pieces(model, prefix + text, None)
    return ids


async def counts(model: Model, texts: tuple[str, ...]) -> list[int]:
    """How many ids each text has, without an instruction and an end token. Raises TextError with its place."""
    n_ids: list[int] = []
    for part in _parts(list(enumerate(texts)), 0):
        place, text = part[0]
        if _is_huge(text):
            try:
                n_ids.append(len(await whole(model, text)))
            except InvalidTextError as error:
                raise InvalidTextError(error.message, place) from None
        else:
            n_ids += await model.call(_lengths, model, part)
    return n_ids


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
    """An id outside the vocabulary, if there is one: llama.cpp would end its process over it."""
    low, high = min(ids, default=0), max(ids, default=0)
    return low if low < 0 else high if high >= n_vocab else None


def _next_text(model: Model, ids: list[int], start: int) -> tuple[int, str]:
    """Where a run of about _IDS_AT_ONCE ids from `start` ends, and its text. Runs on a thread.

    The ids behind the run begin a character, as each run is decoded from UTF-8 by itself.
    """
    end = start + _IDS_AT_ONCE
    behind = ids[end : end + _SEAM]
    # subtle: no character has so many bytes. Where all of the next ids only continue a character, any end is right.
    begins = (place for place, piece in enumerate(model.worker.pieces(behind)) if piece and piece[0] & 0xC0 != 0x80)
    end += next(begins, len(behind)) if behind else 0
    return end, model.worker.detokenize(ids[start:end])


def _hold_ids_to_limit(inputs: Sequence[tuple[int, Input]], resolved: ResolvedOptions, eos_id: int) -> None:
    """Refuse ids that are too many, before anything is tokenized."""
    if resolved.truncate:
        return
    for place, ids in inputs:
        if not isinstance(ids, str):
            n_tokens = len(ids) + (ids[-1:] != (eos_id,))
            if n_tokens > resolved.limit:
                raise TextTooLongError(
                    f"has {n_tokens} tokens, the limit is {resolved.limit}; truncate it or split it", place
                )


def _is_huge(item: Input) -> bool:
    return isinstance(item, str) and len(item) > _SLICE


def _parts(inputs: Sequence[tuple[int, SomeInput]], n_prefix: int) -> Iterator[Sequence[tuple[int, SomeInput]]]:
    """The inputs in runs of about _SLICE characters, a huge text alone. `n_prefix` characters come before each."""
    first = size = 0
    for row, (_, item) in enumerate(inputs):
        if _is_huge(item) and first < row:
            yield inputs[first:row]
            first, size = row, 0
        size += n_prefix + len(item)
        if size >= _SLICE:
            yield inputs[first : row + 1]
            first, size = row + 1, 0
    if first < len(inputs):
        yield inputs[first:]


def _fitted_part(model: Model, preparation: Preparation, inputs: Sequence[tuple[int, Input]]) -> list[Fitted]:
    """The ids to decode for each input, tokenized in one trip to the worker. Runs on a thread."""
    worker = model.worker
    # The prompt alone comes first: `fit` needs its ids.
    texts = [preparation.ready("", 0)] if preparation.resolved.prefix else []
    texts += [preparation.ready(item, place) for place, item in inputs if isinstance(item, str)]
    of_texts = _tokenized_all(worker, [preparation.parts(text) for text in texts])
    prefix_ids = next(of_texts) if preparation.resolved.prefix else []
    fitted = []
    for place, item in inputs:
        if isinstance(item, str):
            ids = next(of_texts)
        else:
            wrong = foreign(item, worker.n_vocab)
            if wrong is not None:
                raise InvalidTextError(f"token id {wrong} is not in the vocabulary of {worker.n_vocab}", place)
            ids = [*prefix_ids, *(item[:-1] if item and item[-1] == worker.eos_id else item)]
        fitted.append(preparation.fit(ids, place, prefix_ids))
    return fitted


def _tokenized_all(worker: WorkerEngine, texts: list[list[str]]) -> Iterator[list[int]]:
    """The ids of each text, which comes in parts, in one trip to the worker."""
    of_parts = iter(worker.tokenize_all([part for parts in texts for part in parts]) if texts else [])
    for parts in texts:
        yield [token_id for _ in parts for token_id in next(of_parts)]


def _lengths(model: Model, texts: Sequence[tuple[int, str]]) -> list[int]:
    """How many ids each text has. Runs on a thread."""
    for place, text in texts:
        check_text(text, place)
    return [len(ids) for ids in model.worker.tokenize_all([model.normalized(text) for _, text in texts])]


async def _huge(model: Model, preparation: Preparation, place: int, text: Input) -> Fitted:
    assert isinstance(text, str)
    resolved = preparation.resolved
    await model.call(check_text, text, place)
    ids, is_all = await _in_pieces(model, resolved.prefix + text, resolved.limit, preparation.parts)
    if not is_all and not resolved.truncate:
        raise TextTooLongError(
            f"has more than {len(ids)} tokens, the limit is {resolved.limit}; truncate it or split it", place
        )
    prefix_ids = await model.call(_tokenized, model, resolved.prefix, preparation.parts) if resolved.prefix else []
    return preparation.fit(ids, place, prefix_ids)


async def _in_pieces(
    model: Model, text: str, limit: int | None, parts: Parts = lambda text: [text]
) -> tuple[list[int], bool]:
    """The ids of a text, and whether they are all. With a limit, stops once there are that many ids.

    `parts` parts each piece once more, as `Preparation` does.
    """
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
            ids_of_run, is_all = await _of_run(model, text, start, limit - len(ids), parts)
            return ids + ids_of_run, is_all
        if end is None:
            raise InvalidTextError(
                f"has {FAR} characters in a row without a space or a mark where it could be parted"
            )
        ids += await model.call(_tokenized, model, text[start:end], parts)
        start = end
    return ids, True


async def _of_run(model: Model, text: str, start: int, needed: int, parts: Parts) -> tuple[list[int], bool]:
    """The first `needed` ids or more of the text from `start`, where nothing can be parted; whether they are all."""
    size = max(PIECE, 2 * needed)
    while True:
        ids = await model.call(_tokenized, model, text[start : start + size], parts)
        if start + size >= len(text):
            return ids, True
        if len(ids) >= needed + _UNSURE:
            return ids[:-_UNSURE], False
        size *= 2


def _tokenized(model: Model, text: str, parts: Parts) -> list[int]:
    (ids,) = _tokenized_all(model.worker, [parts(model.normalized(text))])
    return ids
