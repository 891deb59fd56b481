import tempfile
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from pipeline_sdg.documents import survey

from pipeline.errors import PipelineError
from pipeline.schemas.sdg import SdgConfig

SCRATCH = Path(tempfile.gettempdir())

TEXT = "A sentence that is long enough to count as a document of its own."


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The calls made to the hub, whose one data set has two documents."""
    calls: list[dict[str, Any]] = []
    for name in ("a.md", "docs/en/b.md"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(TEXT + name)

    def download(repo: str, **where: Any) -> str:
        calls.append({"repo": repo, **where})
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    return calls


@pytest.mark.parametrize(
    ("place", "revision", "patterns", "paths"),
    [
        ("hf://org/set", None, None, ["a.md", "docs/en/b.md"]),
        ("hf://org/set/", None, None, ["a.md", "docs/en/b.md"]),
        ("hf://org/set@1c0d", "1c0d", None, ["a.md", "docs/en/b.md"]),
        ("hf://org/set@1c0d/docs/en", "1c0d", "docs/en/**", ["b.md"]),
        ("hf://org/set/docs", None, "docs/**", ["en/b.md"]),
    ],
)
def test_a_data_set_of_the_hub_is_a_corpus(
    asked: list[dict[str, Any]], place: str, revision: str | None, patterns: str | None, paths: list[str]
) -> None:
    assert [item.path for item in survey(SdgConfig(corpus_dir=place), SCRATCH).documents()] == paths
    assert asked == [{"repo": "org/set", "repo_type": "dataset", "revision": revision, "allow_patterns": patterns}]


@pytest.mark.parametrize("place", ["hf://", "hf://org", "hf://org/", "hf://org/set/../x", "hf:///set"])
def test_a_malformed_address_is_refused_before_the_hub_is_asked(asked: list[dict[str, Any]], place: str) -> None:
    with pytest.raises(PipelineError, match="not a data set"):
        list(survey(SdgConfig(corpus_dir=place), SCRATCH).documents())
    assert asked == []


def test_a_missing_folder_of_the_data_set_is_named(asked: list[dict[str, Any]]) -> None:
    with pytest.raises(PipelineError, match="has no folder 'none'"):
        list(survey(SdgConfig(corpus_dir="hf://org/set/none"), SCRATCH).documents())
    assert len(asked) == 1


def test_whatever_goes_wrong_at_the_hub_is_one_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> str:
        raise huggingface_hub.errors.LocalEntryNotFoundError("cannot find it\nmore lines")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(PipelineError, match=r"cannot read hf://org/set: LocalEntryNotFoundError: cannot find it\n"):
        list(survey(SdgConfig(corpus_dir="hf://org/set"), SCRATCH).documents())
