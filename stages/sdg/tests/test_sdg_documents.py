from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pipeline_sdg.documents import describe, list_files, matches, read_corpus, wanted_extensions, warnings

from pipeline.errors import PipelineError

TEXT = "A sentence that is long enough to count as a document of its own."


@pytest.mark.parametrize(
    ("name", "extensions", "expected"),
    [
        ("a.md", ".txt,.md", True),
        ("A.MD", ".md", True),
        ("a.md", "md", True),
        ("README", ".md", False),
        ("README", ".md,", True),
        ("release-5.1", ".md,", False),
        ("notes.averylongextension", ".md,", False),
        ("notes.averylongextension", ".averylongextension", True),
        (".hidden", ".md,", False),
        (".hidden.md", ".md", False),
    ],
)
def test_one_rule_decides_which_file_counts(name: str, extensions: str, expected: bool) -> None:
    assert matches(name, wanted_extensions(extensions)) is expected


@given(st.lists(st.sampled_from(["a.md", "b.TXT", "c", ".d", "e.tar.gz", "f."]), unique=True), st.booleans())
def test_the_lister_follows_the_rule(tmp_path_factory: pytest.TempPathFactory, names: list[str], bare: bool) -> None:
    folder = tmp_path_factory.mktemp("corpus")
    for name in names:
        (folder / name).write_text(TEXT)
    extensions = wanted_extensions(".md,.txt," if bare else ".md,.txt")
    assert list_files(folder, extensions) == sorted(name for name in names if matches(name, extensions))


def write(folder: Path, **files: str | bytes) -> Path:
    for name, content in files.items():
        path = folder / name.replace("__", "/").replace("_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def test_files_are_sorted_then_cut_and_sorted_into_kinds(tmp_path: Path) -> None:
    write(
        tmp_path, b_md=TEXT, a__z_md="\ufeff" + TEXT + "\r\nmore\r\n", c_md="short", d_md=" \n", e_md=b"\xff\xfe\x00x"
    )
    write(tmp_path, x_pdf=TEXT)
    corpus = read_corpus(str(tmp_path), ".md", None, 50)
    assert [document.path for document in corpus.documents] == ["a/z.md", "b.md"]
    assert corpus.documents[0].text == TEXT + "\nmore\n"
    assert (corpus.short, corpus.empty, corpus.undecodable) == (["c.md"], ["d.md"], ["e.md"])
    assert corpus.found == 5
    assert any("e.md" in line for line in describe(corpus))
    assert [document.path for document in read_corpus(str(tmp_path), ".md", 1, 50).documents] == ["a/z.md"]


def test_nothing_usable_says_which_way(tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match=r"no file in .* matches"):
        read_corpus(str(tmp_path), ".md", None, 50)
    write(tmp_path, a_md="short", b_md="too")
    with pytest.raises(PipelineError, match=r"all 2 files .* shorter than min_text_length=50"):
        read_corpus(str(tmp_path), ".md", None, 50)
    write(tmp_path, c_md="")
    with pytest.raises(PipelineError, match=r"2 shorter than .*, 1 empty"):
        read_corpus(str(tmp_path), ".md", None, 50)


def test_missing_folder_and_remote_corpora_are_clear_errors(tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match="is not a folder"):
        read_corpus(str(tmp_path / "none"), ".md", None, 50)
    with pytest.raises(PipelineError, match="later version"):
        read_corpus("hf://org/set", ".md", None, 50)


def test_a_small_or_mostly_short_corpus_is_warned_about(tmp_path: Path) -> None:
    write(tmp_path, a_md=TEXT, b_md="x", c_md="y")
    found = warnings(read_corpus(str(tmp_path), ".md", None, 50))
    assert len(found) == 2
    assert "2 of 3" in found[1]
