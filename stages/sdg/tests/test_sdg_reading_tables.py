import json
import tempfile
from pathlib import Path

import pytest
from pipeline_sdg.documents import UNREADABLE, survey
from pipeline_sdg.reading.document import Document

from pipeline.errors import PipelineError
from pipeline.schemas.sdg import SdgConfig

SCRATCH = Path(tempfile.gettempdir())

TEXT = "A row that is long enough to count as a document."


def config(folder: Path, **changes: object) -> SdgConfig:
    return SdgConfig(corpus_dir=str(folder), file_extensions=".jsonl,.csv,.tsv", min_text_length=10, **changes)


def jsonl(folder: Path, *rows: object, name: str = "c.jsonl") -> Path:
    (folder / name).write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows))
    return folder


def unreadable(configured: SdgConfig) -> list[tuple[str, str]]:
    return survey(configured, SCRATCH).left_out[UNREADABLE].examples


@pytest.mark.parametrize("key", ["_id", "id", "doc_id"])
@pytest.mark.parametrize("column", ["text", "content", "body", "passage"])
def test_every_row_is_a_document_with_its_id_and_title(tmp_path: Path, key: str, column: str) -> None:
    jsonl(tmp_path, {key: "d7", column: TEXT + "\r\n", "title": " On\n rows "}, "", {key: 8, column: TEXT + "!"})
    assert list(survey(config(tmp_path), SCRATCH).documents()) == [
        Document("c.jsonl#d7", TEXT + "\n", "On rows", "d7"),
        Document("c.jsonl#8", TEXT + "!", "", "8"),
    ]


def test_rows_without_an_id_are_numbered(tmp_path: Path) -> None:
    jsonl(tmp_path, {"text": TEXT}, {"text": TEXT + "!"})
    (tmp_path / "d.csv").write_text(f"text\n{TEXT}?\n{TEXT}.\n")
    assert [item.path for item in survey(config(tmp_path), SCRATCH).documents()] == [
        "c.jsonl#1",
        "c.jsonl#2",
        "d.csv#1",
        "d.csv#2",
    ]


def test_the_text_column_can_be_named(tmp_path: Path) -> None:
    jsonl(tmp_path, {"text": "not this one, please", "answer": TEXT}, {"text": TEXT})
    (tmp_path / "d.csv").write_text(f"text,id\n{TEXT},1\n")
    found = config(tmp_path, text_column="answer")
    assert [item.text for item in survey(found, SCRATCH).documents()] == [TEXT]
    paths, reasons = zip(*unreadable(found), strict=True)
    assert paths == ("c.jsonl#2", "d.csv")
    assert "no column answer; columns there: text, id" in reasons[1]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_csv_cells_hold_anything(tmp_path: Path, delimiter: str) -> None:
    cell = f'two\nlines, "quoted"; {TEXT}'
    quoted = '"' + cell.replace('"', '""') + '"'
    name = "d.tsv" if delimiter == "\t" else "d.csv"
    lines = [["id", "title", "text"], ["a", "T", quoted], [], ["b", "", TEXT]]
    (tmp_path / name).write_text("\r\n".join(delimiter.join(cells) for cells in lines), newline="")
    assert list(survey(config(tmp_path), SCRATCH).documents()) == [
        Document(f"{name}#a", cell, "T", "a"),
        Document(f"{name}#b", TEXT, "", "b"),
    ]


def test_a_long_cell_and_another_encoding_are_read(tmp_path: Path) -> None:
    text = "Die Straße ist für alle größer als früher. " * 5000
    (tmp_path / "d.csv").write_bytes(f"text\n{text}\n{text}!\n".encode("cp1252"))
    assert [document.text for document in survey(config(tmp_path), SCRATCH).documents()] == [text, f"{text}!"]
    assert dict(survey(config(tmp_path), SCRATCH).encodings) == {"cp1252": 1}


def test_bad_rows_are_listed_and_the_others_read(tmp_path: Path) -> None:
    jsonl(
        tmp_path,
        {"id": "a", "text": TEXT},
        "{broken",
        [1],
        {"id": "a", "text": TEXT + "!"},
        {"id": "e", "text": 5},
        {"id": True, "text": TEXT},
        {"id": "g", "text": TEXT, "title": 3},
        '{"id": "h", "text": "\\ud800 ' + TEXT + '"}',
        "[" * 100_000,
        {"id": "j"},
        {"id": "k", "text": TEXT + "?"},
    )
    assert [item.own_id for item in survey(config(tmp_path), SCRATCH).documents()] == ["a", "k"]
    found = unreadable(config(tmp_path))
    assert [path for path, _ in found] == [f"c.jsonl#{number}" for number in range(2, 11)]
    assert found[2][1] == "id 'a' stands there twice"
    assert "text must be text, found int '5'" in found[3][1]


def test_bad_csv_rows_are_listed_and_the_others_read(tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_text(f'id,text\na,{TEXT}\nb\nc,"x"y\nd,{TEXT}!\n')
    assert [item.own_id for item in survey(config(tmp_path), SCRATCH).documents()] == ["a", "d"]
    assert [path for path, _ in unreadable(config(tmp_path))] == ["d.csv#2", "d.csv#3"]


def test_a_table_without_text_is_listed(tmp_path: Path) -> None:
    jsonl(tmp_path, {"text": TEXT})
    (tmp_path / "d.csv").write_text("a,b\n1,2\n")
    (tmp_path / "e.csv").write_text("text,text\n1,2\n")
    (tmp_path / "f.csv").write_bytes(b"")
    assert [path for path, _ in unreadable(config(tmp_path))] == ["d.csv", "e.csv", "f.csv"]
    assert survey(config(tmp_path), SCRATCH).files == 4


def test_rows_alone_can_be_too_short_empty_or_twice_there(tmp_path: Path) -> None:
    jsonl(tmp_path, {"text": TEXT}, {"text": TEXT}, {"text": TEXT, "title": "T"}, {"text": " "}, {"text": "short"})
    found = survey(config(tmp_path), SCRATCH)
    assert {why: item.count for why, item in found.left_out.items()} == {
        "too short": 1,
        "empty": 1,
        "duplicate": 1,
        "unreadable": 0,
    }
    assert [entry.path for entry in found.entries] == ["c.jsonl#1", "c.jsonl#3"]


def test_a_file_of_only_bad_rows_says_why(tmp_path: Path) -> None:
    jsonl(tmp_path, {"words": TEXT})
    with pytest.raises(PipelineError, match=r"c\.jsonl#1: no text column"):
        survey(config(tmp_path), SCRATCH)
