"""Bytes to text: UTF-8, what a byte order mark says, or the encoding that fits best."""

from __future__ import annotations

import codecs
from pathlib import Path
from typing import NamedTuple

from pipeline_sdg.reading.document import Unreadable

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16: its mark begins with that one's
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_SAMPLE = 1 << 20
_WESTERN = "cp1252"
_NO_ENCODING = "no encoding fits: is it text at all?"


class Decoded(NamedTuple):
    """`guessed` is the encoding if neither UTF-8 nor a mark settled it, else empty."""

    text: str
    guessed: str


def decode(data: bytes, declared: str = "") -> Decoded:
    """Text of a file, line ends made `\\n`.

    Args:
        declared: the encoding the content itself names (an HTML page's `charset`), tried after UTF-8.

    Raises:
        Unreadable: no encoding fits, or the text has NUL characters.
    """
    encoding, guessed = _settled(data), ""
    if not encoding:
        encoding = guessed = _fits(data, declared) or _detected(data)
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        raise Unreadable(f"not {encoding} text: {error.reason} at byte {error.start}") from error
    if "\0" in text:
        raise Unreadable("has NUL characters: is it text at all?")
    return Decoded(text.replace("\r\n", "\n").replace("\r", "\n"), guessed)


def encoding_of_file(path: Path) -> tuple[str, str]:
    """(encoding, the same if it was guessed or "") of a file of any size, read in pieces.

    Raises:
        Unreadable: as for `decode`.
    """
    with path.open("rb") as stream:
        head = stream.read(_SAMPLE)
        marked = _marked(head)
        if marked:
            return marked, ""
        decoder = codecs.getincrementaldecoder("utf-8")()
        piece = head
        try:
            while piece:
                decoder.decode(piece)
                piece = stream.read(_SAMPLE)
            decoder.decode(b"", final=True)
        except UnicodeDecodeError:
            encoding = _detected(head)
            return encoding, encoding
    return "utf-8", ""


def _marked(data: bytes) -> str:
    return next((name for mark, name in _MARKS if data.startswith(mark)), "")


def _settled(data: bytes) -> str:
    return _marked(data) or ("utf-8" if _fits(data, "utf-8") else "")


def _fits(data: bytes, encoding: str) -> str:
    """The encoding if it exists and the data is valid in it, else nothing."""
    try:
        data.decode(encoding or "undefined")
    except (UnicodeError, LookupError):
        return ""
    return encoding


def _detected(data: bytes) -> str:
    """The encoding that makes the most sense; of equals, the Western one, which is by far the most frequent.

    Raises:
        Unreadable: none makes sense.
    """
    from charset_normalizer import from_bytes

    if b"\0" in data:
        raise Unreadable(_NO_ENCODING)
    matches = from_bytes(data)
    best = matches.best()
    if best is None:
        raise Unreadable(_NO_ENCODING)
    equals = [match for match in matches if (match.chaos, match.coherence) == (best.chaos, best.coherence)]
    names = {name for match in equals for name in match.could_be_from_charset} | {match.encoding for match in equals}
    return _WESTERN if _WESTERN in names and _fits(data, _WESTERN) else best.encoding
