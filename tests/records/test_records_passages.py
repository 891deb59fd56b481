from __future__ import annotations

import hashlib
import json

import pytest

from pipeline.errors import PipelineError
from pipeline.records.passages import Passage, passage_id, read_corpus, write_corpus


def test_an_id_is_the_hash_of_the_exact_text():
    assert passage_id("Grüße") == "d_" + hashlib.sha256("Grüße".encode()).hexdigest()[:16]
    assert passage_id("a") != passage_id("a ")


def test_a_corpus_folder_comes_back_in_order(tmp_path):
    rows = [Passage("d_2", "two\nlines", "Title"), Passage("d_1", "ünïcode", documents=("a.txt",))]
    write_corpus(tmp_path / "corpus", rows, "mine")
    assert list(read_corpus(tmp_path / "corpus").values()) == rows
    metadata = json.loads((tmp_path / "corpus/merlin_metadata.json").read_text())
    assert metadata == {"corpus_id": "mine", "class": "TextQADataset"}
    assert sorted(item.name for item in (tmp_path / "corpus").iterdir()) == ["merlin_metadata.json", "train.parquet"]


def test_titles_are_optional_and_ids_become_text(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    write_corpus(tmp_path, [], "mine")
    pq.write_table(pa.table({"id": [7], "text": ["seven"]}), tmp_path / "train.parquet")
    assert read_corpus(tmp_path) == {"7": Passage("7", "seven")}


def test_what_is_missing_is_named(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    with pytest.raises(PipelineError, match=r"merlin_metadata.json does not exist"):
        read_corpus(tmp_path)
    write_corpus(tmp_path, [], "mine")
    pq.write_table(pa.table({"docid": [7]}), tmp_path / "train.parquet")
    with pytest.raises(PipelineError, match=r"train.parquet: lacks the columns \['id', 'text'\], found \['docid'\]"):
        read_corpus(tmp_path)
    (tmp_path / "train.parquet").unlink()
    with pytest.raises(PipelineError, match=r"holds no table of passages"):
        read_corpus(tmp_path)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"id": ["a"], "text": [5]}, r"train.parquet: the column text must hold text, found int64"),
        ({"id": ["a", "b"], "text": ["x", None]}, r"passage in row 1 has no text"),
        ({"id": [None, "b"], "text": ["x", "y"]}, r"passage in row 0 has no id"),
        ({"id": ["a", "a"], "text": ["x", "y"]}, r"passage id 'a' stands for several texts"),
    ],
)
def test_a_bad_table_is_one_error(tmp_path, columns, message):
    import pyarrow as pa
    import pyarrow.parquet as pq

    write_corpus(tmp_path, [], "mine")
    pq.write_table(pa.table(columns), tmp_path / "train.parquet")
    with pytest.raises(PipelineError, match=message):
        read_corpus(tmp_path)


def test_a_broken_table_is_one_error(tmp_path):
    write_corpus(tmp_path, [], "mine")
    (tmp_path / "train.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(PipelineError, match=r"train.parquet: not readable as a table of passages"):
        read_corpus(tmp_path)
