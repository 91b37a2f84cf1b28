"""Numbers as people write them in messages, captions and reprs: `1 text`, `0.40 of 2.50 GB`, `1:05`."""

from __future__ import annotations


def counted(n: int, what: str, plural: str = "") -> str:
    """`1 text`, `2,000 texts`; `plural` is the word for several where it is not `what` and an s."""
    return f"{n:,} {what if n == 1 else plural or what + 's'}"


def counted_of(n: int, n_total: int | None, what: str) -> str:
    """`1 of 2,000 texts`; without a total as `counted`."""
    return counted(n, what) if n_total is None else f"{n:,} of {counted(n_total, what)}"


def size(n_bytes: int) -> str:
    """Bytes for people, in powers of ten as model pages state them."""
    return f"{n_bytes / 1e9:.2f} GB" if n_bytes >= 1e9 else f"{n_bytes / 1e6:.1f} MB"


def size_of(n_bytes: int, n_total: int) -> str:
    """`0.40 of 2.50 GB`: both in the unit of the total."""
    unit, digits, name = (1e9, 2, "GB") if n_total >= 1e9 else (1e6, 1, "MB")
    return f"{n_bytes / unit:.{digits}f} of {n_total / unit:.{digits}f} {name}"


def duration(seconds: float) -> str:
    """`0:09`, `12:34`, `1:02:03`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
