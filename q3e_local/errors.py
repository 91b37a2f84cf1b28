"""Every error q3e-local raises on purpose.

    Q3EError
    ├── ModelError              the model cannot be used
    │   ├── UnknownModelError       no card has this name
    │   ├── ModelNotHereError       a known model whose file is not on this machine
    │   ├── ModelFileError          missing, not a GGUF, truncated or corrupt
    │   ├── WrongModelError         a sound GGUF, but not a Qwen3 embedding model
    │   │   └── WrongKindError          a reranker where an embedding model is wanted, or the other way round
    │   ├── ConversionError         a checkpoint or GGUF that cannot be converted or quantized
    │   ├── CardError               a model card that cannot be read
    │   └── DownloadError           the model's file could not be brought here
    │       ├── HubUnreachableError     no source answers
    │       └── ChecksumError           what came is not the file on the card
    ├── OptionError             an option outside what the model or the library can do
    ├── TextError               one text cannot be embedded; `index` says which
    │   ├── InvalidTextError        not text: lone surrogates, or not a str
    │   ├── TextTooLongError        more tokens than fit, and cutting was not asked for
    │   └── BadVectorError          the model answered NaN, infinity or zero
    ├── InputError              a file or record that cannot be read as text
    ├── IndexFileError          an index that cannot be used: missing, not an index, damaged, newer, busy
    ├── SpaceMismatchError      vectors of another model, dim or instruction: an index's, or a server's
    ├── NotEnoughMemoryError    the plan does not fit into this machine's memory
    │   └── GpuMemoryError          nor a GPU's, while the machine's own may be enough
    ├── NotEnoughDiskError      the file does not fit on this disk
    ├── EngineError             llama.cpp failed, or the engine is closed
    │   └── CrashError              llama.cpp ended the process it ran in
    ├── MissingPackageError     an optional package is not installed
    └── OutputError             an output cannot be written or continued

Knows nothing of exit codes or HTTP statuses: the command line and the server map types to those.
"""

from __future__ import annotations

from typing import Any


class Q3EError(Exception):
    """Base of the tree; its text is one sentence a user can act on."""


class ModelError(Q3EError):
    """The model cannot be used."""


class UnknownModelError(ModelError):
    """No card has this name. `hint` is the part of the text that says which names there are."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(f"{message}; {hint}" if hint else message)
        self.hint = hint


class ModelNotHereError(ModelError):
    """A known model whose file is not on this machine."""


class ModelFileError(ModelError):
    """The file is missing, not a GGUF, truncated or corrupt."""


class WrongModelError(ModelError):
    """A sound GGUF that is not a Qwen3 embedding model."""


class WrongKindError(WrongModelError):
    """A reranker where an embedding model is wanted, or an embedding model where a reranker is."""


class ConversionError(ModelError):
    """A checkpoint or a GGUF that cannot be converted or quantized."""


class CardError(ModelError):
    """A model card that cannot be read."""


class DownloadError(ModelError):
    """The model's file could not be brought here."""


class HubUnreachableError(DownloadError):
    """No source answers."""


class ChecksumError(DownloadError):
    """A file that came, or lay here, is not the file on the card. It was deleted."""


class OptionError(Q3EError, ValueError):
    """An option outside what the model or the library can do.

    `option` is the option's name, where the text begins with it: `under` puts another name there.
    """

    def __init__(self, message: str, option: str = "") -> None:
        super().__init__(message)
        self.option = option

    def under(self, name: str) -> str:
        """The text with another name of the option."""
        return f"{name}{str(self).removeprefix(self.option)}"


class TextError(Q3EError, ValueError):
    """One text cannot be embedded. `index` is its place in the caller's order, counted from 0."""

    def __init__(self, message: str, index: int = 0) -> None:
        super().__init__(message)
        self.message = message
        self.index = index

    def __str__(self) -> str:
        return f"text {self.index}: {self.message}"


class InvalidTextError(TextError):
    """Not text: a lone surrogate, or not a str at all."""


class TextTooLongError(TextError):
    """More tokens than fit, and cutting was not asked for."""


class BadVectorError(TextError):
    """The model answered NaN, infinity or zero for this text."""


class InputError(Q3EError):
    """A file or record that cannot be read as text."""


class IndexFileError(Q3EError):
    """An index that cannot be used: missing, not an index, damaged, of a newer version, busy."""


class SpaceMismatchError(Q3EError):
    """Vectors of another model, dim or instruction than the caller wants: those of an index, or of a server.

    `command` is the part of the text that says how to make an index fit.
    """

    def __init__(self, message: str, command: str = "") -> None:
        super().__init__(f"{message}: {command}" if command else message)
        self.message, self.command = message, command


class NotEnoughMemoryError(Q3EError, MemoryError):
    """The plan does not fit into this machine's memory."""


class GpuMemoryError(NotEnoughMemoryError):
    """The plan does not fit into a GPU's memory, while that of the machine may be enough."""


class NotEnoughDiskError(Q3EError):
    """The file does not fit on this disk."""


class EngineError(Q3EError, RuntimeError):
    """llama.cpp failed, or the engine is closed."""


class CrashError(EngineError):
    """llama.cpp ended its process. `cause` says how; `last_words` is what the process wrote to stderr before."""

    def __init__(self, cause: str, exit_code: int | None, last_words: str = "") -> None:
        said = f"; its last words: {last_words}" if last_words else ""
        super().__init__(f"the process of llama.cpp {cause}{said}; q3e-local doctor says what to do about it")
        self.cause, self.exit_code, self.last_words = cause, exit_code, last_words

    def __reduce__(self) -> tuple[Any, ...]:
        # For another process: Python would call the class with the text alone.
        return type(self), (self.cause, self.exit_code, self.last_words)


class MissingPackageError(Q3EError, ImportError):
    """An optional package is not installed; the text says how to get it.

    `extra` is the extra of q3e-local that brings it; None where none does.
    """

    def __init__(self, what: str, package: str, extra: str | None = None) -> None:
        wanted = package if extra is None else f"'q3e-local[{extra}]'"
        super().__init__(f"{what} needs {package}; install it with: pip install {wanted}")
        self._arguments = (what, package, extra)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self._arguments


class OutputError(Q3EError):
    """An output cannot be written or continued."""
