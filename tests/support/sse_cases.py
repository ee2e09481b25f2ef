"""Conformance cases of Server-Sent Events, as data for any decoder.

The expectations follow the WHATWG HTML standard, sections 9.2.5 and 9.2.6, read by hand, with one deviation:
an event whose data is the empty string is dropped, since no event of this API has empty data. `CASES` hold at
every way to cut the bytes. `ENDING_CASES` are what the contract adds about the end of a stream.
"""

from typing import NamedTuple


class Case(NamedTuple):
    """Bytes, and the events (name, data) that they are."""

    name: str
    raw: bytes
    events: list[tuple[str, str]]


def _messages(*data: str) -> list[tuple[str, str]]:
    return [("message", each) for each in data]


_TWO = [("a", "1"), ("message", "2")]

LINE_ENDS = [
    Case("LF", b"event: a\ndata: 1\n\ndata: 2\n\n", _TWO),
    Case("CRLF", b"event: a\r\ndata: 1\r\n\r\ndata: 2\r\n\r\n", _TWO),
    Case("CR", b"event: a\rdata: 1\r\rdata: 2\r\r", _TWO),
    Case("all three mixed", b"event: a\r\ndata: 1\n\rdata: 2\r\r\n", _TWO),
    Case("LF, then CRLF as the empty line", b"data: 1\n\r\n", _messages("1")),
    Case("LF, then CR as the empty line", b"data: 1\n\rdata: 2\n\n", _messages("1", "2")),
    Case("CR, then CRLF as the empty line", b"data: 1\r\r\n", _messages("1")),
    Case("CRLF is one end, not two", b"data: 1\r\ndata: 2\r\n\r\n", _messages("1\n2")),
    Case("CR as the last byte ends a line", b"data: 1\r\r", _messages("1")),
    Case("CRLF, then CR as the last byte", b"data: 1\r\n\r", _messages("1")),
    Case(
        "empty lines before, between and after",
        b"\n\r\n\rdata: 1\n\n\n\r\n\rdata: 2\n\n\n",
        _messages("1", "2"),
    ),
    Case("no bytes", b"", []),
    Case("empty lines only", b"\n\r\n\r\r\n\n", []),
]

BOMS = [
    Case("BOM at the start", b"\xef\xbb\xbfdata: 1\n\n", _messages("1")),
    Case("BOM and an empty line", b"\xef\xbb\xbf\ndata: 1\n\n", _messages("1")),
    Case("BOM only", b"\xef\xbb\xbf", []),
    Case(
        "double BOM: the second is part of a name",
        b"\xef\xbb\xbf" * 2 + b"data: 1\n\ndata: 2\n\n",
        _messages("2"),
    ),
    Case("BOM later on", b"data: 1\n\n\xef\xbb\xbfdata: 2\n\ndata: 3\n\n", _messages("1", "3")),
    Case("BOM inside data", b"data: \xef\xbb\xbf1\n\n", _messages("\ufeff1")),
    Case("BOM cut short", b"\xef\xbbdata: 1\n\ndata: 2\n\n", _messages("2")),
    Case("BOM of UTF-16", b"\xff\xfedata: 1\n\ndata: 2\n\n", _messages("2")),
]

ENCODING = [
    Case("two, three and four bytes a character", "data: é€😀\n\n".encode(), _messages("é€😀")),
    Case("joined emoji", "data: 👨‍👩‍👧‍👦✍🏽\n\n".encode(), _messages("👨‍👩‍👧‍👦✍🏽")),
    Case("name that is not ASCII", "event: é😀\ndata: 1\n\n".encode(), [("é😀", "1")]),
    Case("byte that never occurs", b"data: a\xffb\n\n", _messages("a\ufffdb")),
    Case("overlong, two bytes", b"data: \xc0\xaf\n\n", _messages("\ufffd\ufffd")),
    Case("overlong, three bytes", b"data: \xe0\x80\xaf\n\n", _messages("\ufffd\ufffd\ufffd")),
    Case("surrogate", b"data: \xed\xa0\x80\n\n", _messages("\ufffd\ufffd\ufffd")),
    Case("beyond U+10FFFF", b"data: \xf4\x90\x80\x80\n\n", _messages("\ufffd\ufffd\ufffd\ufffd")),
    Case("character cut by another", b"data: \xf0\x9f\x98x\n\n", _messages("\ufffdx")),
    Case("character cut by a line end", b"data: \xe2\x82\ndata: 2\n\n", _messages("\ufffd\n2")),
    Case("overlong line feed is none", b"data: a\xc0\x8ab\n\n", _messages("a\ufffd\ufffdb")),
    Case("lone continuation at the end", b"data: 1\n\n\x80", _messages("1")),
    Case("character cut by the end", b"data: 1\n\ndata: \xf0\x9f", _messages("1")),
]

SEPARATORS = [
    Case(
        "U+2028, U+2029, U+0085 in data",
        "data: a\u2028b\u2029c\u0085d\n\n".encode(),
        _messages("a\u2028b\u2029c\u0085d"),
    ),
    Case(
        "VT, FF, FS, GS, RS in data",
        b"data: a\x0bb\x0cc\x1cd\x1de\x1ef\n\n",
        _messages("a\x0bb\x0cc\x1cd\x1de\x1ef"),
    ),
    Case("U+2028 in a name", "event: a\u2028b\ndata: 1\n\n".encode(), [("a\u2028b", "1")]),
    Case("U+2028 alone is no line", "data: 1\n\u2028\ndata: 2\n\n".encode(), _messages("1\n2")),
    Case("NUL in data", b"data: a\x00b\n\n", _messages("a\x00b")),
    Case("NUL in a name", b"event: a\x00b\ndata: 1\n\n", [("a\x00b", "1")]),
    Case("NUL in an id", b"id: a\x00b\ndata: 1\n\n", _messages("1")),
    Case("NUL before a field's name", b"\x00data: 1\ndata: 2\n\n", _messages("2")),
]

COMMENTS = [
    Case("comment between events", b": ping\n\ndata: 1\n\n: ping\n\n", _messages("1")),
    Case("empty comments only", b":\n\n:\n\n", []),
    Case("comment inside an event", b"data: 1\n: between\ndata: 2\n\n", _messages("1\n2")),
    Case("comment between name and data", b"event: a\n:\ndata: 1\n\n", [("a", "1")]),
    Case("comment that looks like data", b":data: 1\n\n", []),
    Case("comments after an id", b"id: 7\ndata: 1\n\n: ping\n\n: ping\n\ndata: 2\n\n", _messages("1", "2")),
    Case("comments by CR and CRLF", b": a\r: b\r\n\r\ndata: 1\r\r", _messages("1")),
]

WITHOUT_DATA = [
    Case("name only, and it is forgotten", b"event: a\n\ndata: 1\n\n", _messages("1")),
    Case("id only", b"id: 7\n\ndata: 1\n\n", _messages("1")),
    Case("retry only", b"retry: 10\n\ndata: 1\n\n", _messages("1")),
    Case("id that stays, id that is reset", b"id: 7\ndata: 1\n\n\nid\ndata: 2\n\n\n", _messages("1", "2")),
    Case("name, id and retry without data", b"event: a\nid: 7\nretry: 1\n\n", []),
]

DATA = [
    Case("data without a colon is empty: dropped", b"data\n\n", []),
    Case("data with nothing behind: dropped", b"data:\n\ndata: \n\n", []),
    Case("empty data is dropped with its name", b"event: a\ndata:\n\ndata: 1\n\n", _messages("1")),
    Case("two empty lines of data are a line feed", b"data\ndata\n\n", _messages("\n")),
    Case("empty line of data behind another", b"data: 1\ndata:\n\n", _messages("1\n")),
    Case("empty line of data before another", b"data\ndata: 1\n\n", _messages("\n1")),
    Case("one space goes", b"data:1\n\ndata: 1\n\ndata:  1\n\n", _messages("1", "1", " 1")),
    Case("a tab stays", b"data:\t1\n\ndata: \t1\n\n", _messages("\t1", "\t1")),
    Case("a no-break space stays", "data:\u00a01\n\n".encode(), _messages("\u00a01")),
    Case("space at the end stays", b"data: 1 \t\n\n", _messages("1 \t")),
    Case("space only stays but for one", b"data:  \n\n", _messages(" ")),
    Case("colons in data", b"data: a:b\n\ndata::c\n\ndata: :d\n\n", _messages("a:b", ":c", ":d")),
    Case("several lines", b"data: 1\ndata: 2\ndata: 3\n\n", _messages("1\n2\n3")),
    Case("data apart by other fields", b"data: 1\nevent: a\ndata: 2\nid: 7\n\n", [("a", "1\n2")]),
]

NAMES = [
    Case("fields are told apart by case", b"DATA: 1\nData: 2\ndata: 3\nEvent: a\n\n", _messages("3")),
    Case("space before a field", b" data: 1\ndata: 2\n\n", _messages("2")),
    Case("space behind a field", b"data : 1\nevent : a\ndata: 2\n\n", _messages("2")),
    Case("a line of one space is not empty", b"data: 1\n \ndata: 2\n\n", _messages("1\n2")),
    Case("unknown fields", b"foo: 1\ndata: 2\nbar\ndatax: 3\ndat: 4\n\n", _messages("2")),
    Case("the last name wins", b"event: a\nevent: b\ndata: 1\n\n", [("b", "1")]),
    Case("an empty name is no name", b"event: a\nevent:\ndata: 1\n\nevent\ndata: 2\n\n", _messages("1", "2")),
    Case("the name comes behind the data", b"data: 1\nevent: a\n\n", [("a", "1")]),
    Case("a name loses one space", b"event:a\ndata: 1\n\nevent:  a \ndata: 2\n\n", [("a", "1"), (" a ", "2")]),
    Case("the name that is the default", b"event: message\ndata: 1\n\n", _messages("1")),
    Case("a name with a colon", b"event: a:b\ndata: 1\n\n", [("a:b", "1")]),
]

RETRIES = [
    Case("retry with a sign", b"retry: +5\nretry: -1\ndata: 1\n\n", _messages("1")),
    Case(
        "retry in Python's ways",
        b"retry: 1_000\nretry: 1e3\nretry: 5.0\nretry:  5\ndata: 1\n\n",
        _messages("1"),
    ),
    Case(
        "retry in other digits",
        "retry: \u0665\nretry: \uff15\nretry: \u00b2\ndata: 1\n\n".encode(),
        _messages("1"),
    ),
    Case("retry of 5,000 digits", b"retry: " + b"9" * 5000 + b"\ndata: 1\n\n", _messages("1")),
    Case("retry without a value", b"retry:\nretry\ndata: 1\n\n", _messages("1")),
]

ENDS = [
    Case("end inside a line", b"data: 1\n\ndata: 2", _messages("1")),
    Case("end behind a line", b"data: 1\n\ndata: 2\n", _messages("1")),
    Case("end behind a CRLF", b"event: a\r\ndata: 1\r\n", []),
    Case("end behind a CR", b"data: 1\r", []),
    Case("end inside a name", b"data: 1\n\neve", _messages("1")),
    Case("end inside a comment", b"data: 1\n\n: pin", _messages("1")),
]

#: The standard prints these.
EXAMPLES = [
    Case("standard, stocks", b"data: YHOO\ndata: +2\ndata: 10\n\n", _messages("YHOO\n+2\n10")),
    Case(
        "standard, four blocks",
        b": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n\n",
        _messages("first event", "second event", " third event"),
    ),
    Case("standard, empty data", b"data\n\ndata\ndata\n\ndata:", _messages("\n")),
    Case("standard, the space", b"data:test\n\ndata: test\n\n", _messages("test", "test")),
    Case(
        "standard, names",
        b"event: add\ndata: 73857293\n\nevent: remove\ndata: 2153\n\nevent: add\ndata: 113411\n\n",
        [("add", "73857293"), ("remove", "2153"), ("add", "113411")],
    ),
]

CASES = [
    *LINE_ENDS,
    *BOMS,
    *ENCODING,
    *SEPARATORS,
    *COMMENTS,
    *WITHOUT_DATA,
    *DATA,
    *NAMES,
    *RETRIES,
    *ENDS,
    *EXAMPLES,
]

_DONE = '{"credits_remaining": 4840, "message_id": "msg_01HY1"}'
_DONE_BLOCK = b"event: done\ndata: " + _DONE.encode()

#: Where the contract says more than the standard: a last `[DONE]` or a complete `done` counts without its
#: empty line, and without its line end too; nothing else does. A plain decoder gives none of them.
ENDING_CASES = [
    Case("[DONE] without a line end", b"data: [DONE]", _messages("[DONE]")),
    Case("[DONE] with LF", b"data: [DONE]\n", _messages("[DONE]")),
    Case("[DONE] with CRLF", b"data: [DONE]\r\n", _messages("[DONE]")),
    Case("[DONE] with CR", b"data: [DONE]\r", _messages("[DONE]")),
    Case("[DONE] without a space", b"data:[DONE]\n", _messages("[DONE]")),
    Case("[DONE] behind an event", b"data: 1\n\ndata: [DONE]\n", _messages("1", "[DONE]")),
    Case("[DONE] cut", b"data: 1\n\ndata: [DON", _messages("1")),
    Case("done without a line end", _DONE_BLOCK, [("done", _DONE)]),
    Case("done with LF", _DONE_BLOCK + b"\n", [("done", _DONE)]),
    Case("done by CRLF", _DONE_BLOCK.replace(b"\n", b"\r\n") + b"\r\n", [("done", _DONE)]),
    Case("done by CR", _DONE_BLOCK.replace(b"\n", b"\r"), [("done", _DONE)]),
    Case("done cut inside its JSON", _DONE_BLOCK[:-1], []),
    Case("done cut inside a number", b'event: done\ndata: {"credits_remaining": 48', []),
    Case("done without data", b"event: done\n", []),
    Case("text without its empty line", b'event: text\ndata: {"delta": "a"}\n', []),
]
