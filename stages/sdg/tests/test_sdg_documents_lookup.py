import json
from pathlib import Path

import pytest
from pipeline_sdg.documents import documents, lookup

from pipeline.errors import PipelineError
from pipeline.schemas.sdg import SdgConfig

TEXT = "A sentence that is long enough to count as a document of its own."


def test_documents_are_found_by_path_in_any_order(tmp_path: Path) -> None:
    (tmp_path / "c#1.md").write_text(TEXT)
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "b#2.jsonl").write_text(
        "\n".join(json.dumps({"id": name, "text": TEXT + name, "title": name}) for name in ("x", "y#z", "x"))
    )
    (tmp_path / "a.csv").write_text(f"text\n{TEXT}!\n{TEXT}?\n")
    config = SdgConfig(corpus_dir=str(tmp_path), file_extensions=".md,.jsonl,.csv")
    found = list(documents(config))
    assert [item.path for item in found] == ["a.csv#1", "a.csv#2", "c#1.md", "sub/b#2.jsonl#x", "sub/b#2.jsonl#y#z"]
    with lookup(config) as library:
        for item in [*reversed(found), *found]:
            assert library.read(item.path) == item


@pytest.mark.parametrize("path", ["none.md", "a.csv", "a.csv#9", "none.csv#1", "a#b"])
def test_a_document_that_is_gone_is_one_error(tmp_path: Path, path: str) -> None:
    (tmp_path / "a.csv").write_text(f"text\n{TEXT}!\n")
    config = SdgConfig(corpus_dir=str(tmp_path), file_extensions=".md,.csv")
    with lookup(config) as library, pytest.raises(PipelineError, match="cannot be read any more"):
        library.read(path)
