import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pipeline_sdg.documents import describe, survey
from pipeline_sdg.reading.document import Unreadable
from pipeline_sdg.reading.encoding import decode, encoding_of_file

from pipeline.schemas.sdg import SdgConfig

SCRATCH = Path(tempfile.gettempdir())

GERMAN = "Die Tür ist größer als früher, und die Straße vor dem Café ist naß. Das Öffnen geht so."
RUSSIAN = "Привет, как дела? Это русский текст, который нужен для проверки кодировки файла."
JAPANESE = "日本語のテキストです。これはテストのために書かれた文章で、文字コードを調べます。"
plain = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0\r\ufeff"))


@given(plain, st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-32"]))
def test_utf_8_and_marked_text_are_read_exactly(text: str, encoding: str) -> None:
    assert decode(text.encode(encoding)) == (text, "")


@pytest.mark.parametrize(
    ("text", "stored", "named"),
    [(GERMAN, "cp1252", "cp1252"), (RUSSIAN, "cp1251", "cp1251"), (JAPANESE, "shift_jis", "cp932")],
)
def test_other_encodings_are_detected_and_reported(tmp_path: Path, text: str, stored: str, named: str) -> None:
    assert decode(text.encode(stored)) == (text, named)
    (tmp_path / "a.txt").write_bytes(text.encode(stored))
    assert encoding_of_file(tmp_path / "a.txt") == (named, named)
    config = SdgConfig(corpus_dir=str(tmp_path), min_text_length=10)
    assert [item.text for item in survey(config, SCRATCH).documents()] == [text]
    assert f"encoding guessed: a.txt ({named})" in describe(survey(config, SCRATCH))


def test_a_declared_encoding_comes_before_guessing() -> None:
    assert decode("Zażółć".encode("iso8859_2"), "iso-8859-2") == ("Zażółć", "iso-8859-2")
    assert decode(GERMAN.encode("cp1252"), "no-such-thing") == (GERMAN, "cp1252")
    assert decode(GERMAN.encode(), "iso-8859-1") == (GERMAN, "")


@pytest.mark.parametrize("data", [b"\x89PNG\x00\x00\xff\x01", b"text with \x00 inside", b"\xff\xfe\x00\xd8\x00"])
def test_what_is_no_text_is_refused(data: bytes) -> None:
    with pytest.raises(Unreadable):
        decode(data)


@given(st.binary(max_size=200))
def test_any_bytes_are_text_or_refused(data: bytes) -> None:
    try:
        text, _ = decode(data)
    except Unreadable:
        return
    assert "\0" not in text and "\r" not in text
    text.encode("utf-8")


def test_a_character_across_the_read_size_is_no_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline_sdg.reading.encoding._SAMPLE", 3)
    (tmp_path / "a.csv").write_text("abö日本é")
    assert encoding_of_file(tmp_path / "a.csv") == ("utf-8", "")
