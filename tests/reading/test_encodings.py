"""Texts come out right in whatever common encoding they were saved, even where they are a single sentence.

The sentences are what people write; the encodings are Python's own.
"""

from __future__ import annotations

import pytest

from q3e_local.errors import InputError
from q3e_local.reading import read_bytes

CHINESE = (
    "会议", "预算", "你好", "安全报告", "第三季度预算复盘",
    "请在周五之前把合同寄给王经理。",
    "张三 13800138000",
    "OK，明天见", "1. 项目背景\n2. 目标", "價格與質量問題的報告",
)  # fmt: skip
TAIWANESE = ("會議", "你好嗎", "請在週五之前把合約寄給王經理。", "第三季度預算檢討")
JAPANESE = (
    "会議の議事録です",
    "こんにちは、世界",
    "レッスン 6 は\nまだです",
    "金曜日までに契約書を王さんに送ってください。",
)
KOREAN = (
    "오늘 날씨가 아주 좋습니다", "금요일까지 계약서를 왕 부장님께 보내 주세요.",
    "도움말,파일,편집,도구,창,열기,저장,끝내기,되돌리기,잘라내기,붙이기,찾기,바꾸기,설정",
)  # fmt: skip
WESTERN = (
    "Müller schickt den Vertrag über die Brücke.", "déjà vu à l'école", "Straße", "“quoted” – it’s €5",
    "¿El niño comió piñas?", "Größe: 5 cm²", "la col·lecció", "it´s naïve", "¡¡ NOTA",
)  # fmt: skip
RUSSIAN = ("Пожалуйста, отправьте договор до пятницы.", "Сегодня хорошая погода, и мы пойдём гулять в парк.")
POLISH = ("Zażółć gęślą jaźń. Proszę wysłać umowę do piątku.",)
MIXED = (
    "请", "Müller", "é", "Ğ", "да", "ñ¼", "😀", "a", "one\n二\n", "thư", "«այո»", "Ω ɸ ½",
    "Ŀ¼",  # its bytes are 目录 in GBK too: UTF-8 comes first
)  # fmt: skip
# Saved as, and what the document says it was.
SAVED = {
    "utf-8": ("utf-8", MIXED), "utf-8-sig": ("utf-8", MIXED),
    "utf-16": ("utf-16-le", MIXED), "utf-32": ("utf-32-le", MIXED),
    "utf-16-le": ("utf-16-le", ("hello world", "会议\n", "第三季度预算复盘会议记录全体参加")),
    "utf-16-be": ("utf-16-be", ("hello world", "请在周五之前把合同寄给王经理。\nok")),
    "gbk": ("gb18030", CHINESE), "gb18030": ("gb18030", ("㐀𠀀是很少见的汉字，其他字都常见，可以辨认出来。",)),
    "big5": ("cp950", TAIWANESE), "cp932": ("cp932", JAPANESE), "euc_jp": ("euc_jp", JAPANESE),
    "cp949": ("cp949", KOREAN),
    "cp1252": ("cp1252", WESTERN), "latin-1": ("cp1252", ("Straße", "déjà vu")),
    "cp1251": ("cp1251", RUSSIAN), "koi8_r": ("koi8_r", RUSSIAN), "cp1250": ("cp1250", POLISH),
}  # fmt: skip
CASES = [(saved, said, text) for saved, (said, texts) in SAVED.items() for text in texts]


@pytest.mark.parametrize(("saved", "said", "text"), CASES)
def test_a_text_comes_out_as_it_was_saved(saved, said, text):
    document = read_bytes("a.txt", text.encode(saved))
    assert (document.text, document.encoding) == (text, said)


@pytest.mark.parametrize("name", ["a.csv", "a.md", "a.py", "a.html", "no-suffix"])
def test_all_kinds_of_text_are_decoded(name):
    document = read_bytes(name, "价格表\n".encode("gb18030"))
    assert (document.text.strip(), document.encoding) == ("价格表", "gb18030")


@pytest.mark.parametrize(
    ("declared", "saved", "said"),
    [("gb2312", "gbk", "gb18030"), ("windows-1251", "cp1251", "cp1251"), ("nonsense", "gbk", "gb18030"),
     ("hex", "gbk", "gb18030"), ("big5", "utf-8", "utf-8"), ("utf-8", "gbk", "gb18030")],
)  # fmt: skip
def test_a_page_says_its_encoding_and_may_be_wrong(declared, saved, said):
    text = "Да, нет" if saved == "cp1251" else "请把合同寄给王经理。"
    document = read_bytes("a.html", f"<html><head><meta charset='{declared}'></head><p>{text}".encode(saved))
    assert (document.text, document.encoding) == (text, said)


@pytest.mark.parametrize("encoding", ["utf-8", "gb18030"])
def test_a_wrong_byte_in_a_long_text_costs_one_character(encoding):
    lines = [f"第{number}条，请在周五之前把合同寄给王经理。\n".encode(encoding) for number in range(20)]
    document = read_bytes("a.txt", b"".join(lines[:10]) + b"bad: \xff\n" + b"".join(lines[10:]))
    assert document.encoding == encoding
    assert document.text.count("\ufffd") == 1
    assert "第19条，请在周五之前把合同寄给王经理。" in document.text


def test_a_text_that_was_cut_inside_a_character_keeps_all_before_it():
    for encoding, said in {"utf-8": "utf-8", "gbk": "gb18030"}.items():
        document = read_bytes("a.txt", "请在周五之前".encode(encoding)[:-1])
        assert (document.text.rstrip("\ufffd"), document.encoding) == ("请在周五之", said)


@pytest.mark.parametrize("data", [bytes(range(256)), b"\x7fELF\x02\x01\x01" + bytes(60), bytes(range(0, 80, 2)) * 3])
def test_what_is_not_text_is_refused(data):
    with pytest.raises(InputError, match=r"^is not text"):
        read_bytes("a.txt", data)


@pytest.mark.parametrize(
    ("saved", "line"), [("gb18030", CHINESE[8]), ("cp1251", RUSSIAN[0]), ("utf-8", "déjà vu à l'école")]
)
def test_an_encoding_is_found_where_a_file_leaves_ascii_however_late(saved, line):
    document = read_bytes("a.log", b"a line of ASCII\n" * 5000 + line.encode(saved) + b"\nand on\n")
    assert document.encoding == saved
    assert line in document.text
    assert document.problems == ()


def test_a_wrong_byte_in_a_few_words_of_utf8_is_a_problem_of_the_document():
    document = read_bytes("a.log", b"ASCII\n" * 20_000 + "naïve café".encode() + b" \xff\n")
    assert document.text.endswith("naïve café \ufffd\n")
    assert document.problems == (
        "bytes that are not utf-8, shown as U+FFFD: 1, the first is byte 120,014; save it as UTF-8",
    )
