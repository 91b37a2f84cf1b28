"""From tokenizer.json to the vocabulary of a GGUF: tokens, types, merges, special ids, flags.

Knows the Hugging Face tokenizer files of the Qwen family, and what llama.cpp's converter makes of them. Writes
nothing. An embedding model's end token is set whatever the files say: revisions before June 2025 do not have it.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gguf import TokenType

from q3e_local.convert.shards import REMEDY, read_json
from q3e_local.errors import ConversionError
from q3e_local.gguf.model_file import END_TEXT
from q3e_local.gguf.model_kind import ModelKind

logger = logging.getLogger(__name__)

# How the family cuts a text into the pieces that byte pairs are merged in: `qwen2` in llama.cpp.
PIECES = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# In the order they are looked for, which is the order they are written in.
_KINDS = ("bos", "eos", "unk", "sep", "pad", "cls", "mask", "eot")


@dataclass
class Vocabulary:
    """What a GGUF says of its tokenizer. `appends_end`: whether the checkpoint's own tokenizer adds the end token."""

    tokens: list[str]
    types: list[int]
    merges: list[str]
    special_ids: dict[str, int] = field(default_factory=dict)
    added: dict[str, bool] = field(default_factory=dict)
    chat_template: str | list[dict[str, str]] | None = None
    appends_end: bool = False


def read_vocabulary(folder: Path, config: dict[str, Any], n_vocab: int, kind: ModelKind = "embedder") -> Vocabulary:
    """The vocabulary of a checkpoint of `n_vocab` rows. Raises ConversionError."""
    path = folder / "tokenizer.json"
    tokenizer = read_json(path)
    settings_path = folder / "tokenizer_config.json"
    settings = read_json(settings_path) if settings_path.exists() else {}
    model = _dict(tokenizer.get("model"))
    if model.get("type") != "BPE":
        raise ConversionError(f"{path} is a {model.get('type')!r} tokenizer; Qwen3-Embedding's is BPE")
    if _pattern(tokenizer.get("pre_tokenizer")) != PIECES:
        logger.warning("%s does not cut texts as Qwen3-Embedding's does; check the vectors", path)
    texts, added = _texts(path, model, tokenizer.get("added_tokens"), n_vocab)
    if END_TEXT not in added:
        raise ConversionError(f"{path} has no added token {END_TEXT}; it is no Qwen3-Embedding tokenizer")
    vocabulary = Vocabulary(*_tokens(texts, added), _merges(path, model.get("merges")))
    _read_post_processor(path, tokenizer.get("post_processor"), vocabulary)
    _set_specials(path, settings, config, added, vocabulary, ends_text=kind == "embedder")
    vocabulary.chat_template = _chat_template(folder, settings)
    return vocabulary


@dataclass(frozen=True)
class _Added:
    id: int
    is_control: bool


def _texts(path: Path, model: dict[str, Any], added: Any, n_vocab: int) -> tuple[list[str | None], dict[str, _Added]]:
    """Texts by id, None where an id has none, and the added tokens among them by text."""
    texts: list[str | None] = [None] * n_vocab

    def put(text: Any, token_id: Any) -> None:
        if not isinstance(text, str) or type(token_id) is not int:
            raise ConversionError(f"{path} has a broken token {text!r}: {token_id!r}; {REMEDY}")
        if not 0 <= token_id < n_vocab:
            raise ConversionError(f"{path} has {text!r} at id {token_id}, the model {n_vocab} rows; {REMEDY}")
        if texts[token_id] not in (None, text):
            raise ConversionError(f"{path} has {text!r} and {texts[token_id]!r} at id {token_id}; {REMEDY}")
        texts[token_id] = text

    for text, token_id in _dict(model.get("vocab")).items():
        put(text, token_id)
    by_text = {}
    for each in _list(added):
        entry = _dict(each)
        put(entry.get("content"), entry.get("id"))
        content = str(entry["content"])
        looks_special = content.startswith("<|") and content.endswith("|>")
        by_text[content] = _Added(entry["id"], entry.get("special") is True or looks_special)
    _refuse_surrogates(path, [text for text in texts if text])
    return texts, by_text


def _tokens(texts: list[str | None], added: dict[str, _Added]) -> tuple[list[str], list[int]]:
    """The text and the type of each id."""

    def kind(text: str | None) -> TokenType:
        if text is None:
            return TokenType.UNUSED
        if text not in added:
            return TokenType.NORMAL
        return TokenType.CONTROL if added[text].is_control else TokenType.USER_DEFINED

    tokens = [f"[PAD{token_id}]" if text is None else text for token_id, text in enumerate(texts)]
    return tokens, [int(kind(text)) for text in texts]


def _merges(path: Path, merges: Any) -> list[str]:
    """Merges as `left right`; newer files have pairs, in which a space must be written as byte-level BPE does."""
    if not isinstance(merges, list) or not merges:
        raise ConversionError(f"{path} has no merges; {REMEDY}")
    joined = []
    for merge in merges:
        pair = merge if isinstance(merge, list) else str(merge).split(" ")
        if len(pair) != 2 or not all(isinstance(part, str) and part for part in pair):
            raise ConversionError(f"{path} has a broken merge {merge!r}; {REMEDY}")
        joined.append(" ".join(part.replace(" ", "Ġ") for part in pair))
    _refuse_surrogates(path, joined)
    return joined


def _read_post_processor(path: Path, processor: Any, vocabulary: Vocabulary) -> None:
    """Whether a template adds special tokens to a text; llama.cpp's converter looks at the same places."""
    processor = _dict(processor)
    for part in _list(processor.get("processors", [processor])):
        kind = _dict(part).get("type")
        if kind == "ByteLevel":
            vocabulary.added.setdefault("bos", False)
            vocabulary.added.setdefault("eos", False)
        elif kind == "TemplateProcessing":
            single, pair = ([_piece(each) for each in _list(part.get(key))] for key in ("single", "pair"))
            first, last = (single[0], single[-1]) if len(single) > 1 else ("A", "A")
            if first != "A" or last not in ("A", END_TEXT):
                raise ConversionError(
                    f"{path} puts {first if first != 'A' else last!r} around a text, not only {END_TEXT} after it; "
                    "that is no Qwen3-Embedding tokenizer"
                )
            vocabulary.appends_end = last == END_TEXT
            if vocabulary.appends_end:
                vocabulary.added["eos"] = True
                pair = pair[:-1] if pair[-1:] == [END_TEXT] else pair
            between = pair[1:-1] if pair[:1] == ["A"] and pair[-1:] == ["B"] else []
            if between:
                vocabulary.added["sep"] = len(between) == 2 and between[1] == END_TEXT


def _set_specials(
    path: Path,
    settings: dict[str, Any],
    config: dict[str, Any],
    added: dict[str, _Added],
    vocabulary: Vocabulary,
    ends_text: bool,
) -> None:
    """Which tokens are special, and which are put around a text. `ends_text`: whether a text needs the end token."""
    named: dict[str, Any] = {}
    for kind in _KINDS[:-1]:
        entry = settings.get(f"{kind}_token")
        named[kind] = entry.get("content") if isinstance(entry, dict) else entry
    if vocabulary.added.get("sep"):
        named["sep"] = named["sep"] or END_TEXT
    if ends_text or vocabulary.appends_end:
        if named["eos"] != END_TEXT:
            named["eot"] = named["eos"]  # the end of a chat's turn: not what ends a text here
        named["eos"] = END_TEXT
    ids = vocabulary.special_ids
    for kind in _KINDS:
        if isinstance(named.get(kind), str) and named[kind] in added:
            ids[kind] = added[named[kind]].id
    for kind in _KINDS[:-1]:
        token_id = config.get(f"{kind}_token_id")
        if type(token_id) is int and 0 <= token_id < len(vocabulary.tokens):
            ids.setdefault(kind, token_id)
        adds = settings.get(f"add_{kind}_token")
        if isinstance(adds, bool):
            vocabulary.added.setdefault(kind, adds)
    if not ends_text:  # a reranker's prompt ends with a chat's turn
        return
    if not vocabulary.appends_end:
        logger.warning("%s does not append %s, as revisions before June 2025 did not; it is set here", path, END_TEXT)
    vocabulary.added["eos"] = True


def _chat_template(folder: Path, settings: dict[str, Any]) -> str | list[dict[str, str]] | None:
    """The template of the chat model that this model was made from: nothing here reads it, but the file has it."""
    template = settings.get("chat_template")
    beside = folder / "chat_template.jinja"
    if template is None and beside.is_file():
        try:
            template = beside.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConversionError(f"cannot read {beside}: {error}") from None
    elif template is None and (folder / "chat_template.json").is_file():
        template = read_json(folder / "chat_template.json").get("chat_template")
    is_list = isinstance(template, list) and all(
        isinstance(_dict(each).get("name"), str) and isinstance(_dict(each).get("template"), str) for each in template
    )
    return template if is_list or isinstance(template, str) else None


def _pattern(pre_tokenizer: Any) -> str | None:
    parts = _dict(pre_tokenizer).get("pretokenizers")
    for part in parts if isinstance(parts, list) else [pre_tokenizer]:
        if _dict(part).get("type") == "Split":
            pattern = _dict(_dict(part).get("pattern")).get("Regex")
            return pattern if isinstance(pattern, str) else None
    return None


def _piece(entry: Any) -> str | None:
    """A template's piece: the text of a special token, or `A` or `B` for a sequence."""
    entry = _dict(entry)
    piece = _dict(entry.get("SpecialToken") or entry.get("Sequence")).get("id")
    return piece if isinstance(piece, str) else None


def _refuse_surrogates(path: Path, texts: list[str]) -> None:
    try:
        "".join(texts).encode("utf-8")
    except UnicodeEncodeError:
        raise ConversionError(f"{path} has a token that is no valid Unicode; {REMEDY}") from None


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
