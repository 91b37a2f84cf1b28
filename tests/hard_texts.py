"""Texts that are hard to cut: what a tokenizer joins, and documents of several kinds."""

from __future__ import annotations

from collections.abc import Callable

LETTERS = [
    "word",
    "Ünï",
    "e\u0301a",
    "\u0958",
    "中文",
    "한국",
    "\u1112\u1161\u11ab",
    "ไทย",
    "x",
    "5",
    "2024",
    "٣",
    "ab" * 40,
]
MARKS = [" ", "  ", "\n", "\r\n", "\t", ".", "...", "'s", "'", "-", "\u3002", "\uff0c", "\u0338", "=", "\u200d", "😀"]
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|", "|>", "<", "endoftext"]

DOCUMENTS: dict[str, Callable[[], str]] = {
    "english.md": lambda: "".join(
        f"# Part {part}\n\n{' '.join(f'Sentence {n} of part {part} says {n * part} is so.' for n in range(30))}\n\n"
        for part in range(12)
    ),
    "chinese.txt": lambda: "".join(f"第{n}句话说明了第{n % 7}个问题，后来又补充了{n % 11}点。" for n in range(150)),
    "unmarked.txt": lambda: "天地玄黄宇宙洪荒日月盈昃辰宿列张" * 90,
    "code.py": lambda: "".join(
        f"def function_{n}(value):\n    if value > {n}:\n        return value - {n}\n    return value\n\n\n"
        for n in range(60)
    ),
    "table.csv": lambda: "name,city\n" + "".join(f"person {n},city {n % 9}\n" for n in range(120)),
}  # fmt: skip
