import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pipeline_sdg.documents import (
    DUPLICATE,
    EMPTY,
    SHORT,
    UNREADABLE,
    Entry,
    describe,
    list_files,
    matches,
    survey,
    wanted_extensions,
    warnings,
)

from pipeline.errors import PipelineError
from pipeline.schemas.sdg import SdgConfig

SCRATCH = Path(tempfile.gettempdir())

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


def test_the_documented_extensions_are_the_default() -> None:
    assert wanted_extensions(SdgConfig().file_extensions) == {".txt", ".md", ".text", ""}


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


def config(folder: Path, **changes: object) -> SdgConfig:
    return SdgConfig(corpus_dir=str(folder), **changes)


def test_files_are_sorted_then_cut_and_sorted_into_kinds(tmp_path: Path) -> None:
    write(tmp_path, b_md=TEXT, a__z_md="\ufeff" + TEXT + "\r\nmore\r\n", c_md="short", d_md=" \n", e_md=b"\x00\x01\xff")
    write(tmp_path, f_md="\n" + TEXT, x_pdf=TEXT)
    found = survey(config(tmp_path), SCRATCH)
    assert found.entries == [Entry("a/z.md", len(TEXT) + 6), Entry("b.md", len(TEXT))]
    assert {why: [path for path, _ in item.examples] for why, item in found.left_out.items()} == {
        SHORT: ["c.md"],
        EMPTY: ["d.md"],
        DUPLICATE: ["f.md"],
        UNREADABLE: ["e.md"],
    }
    assert found.left_out[DUPLICATE].examples == [("f.md", "the same text as b.md")]
    assert (found.files, found.found, found.characters) == (6, 6, 2 * len(TEXT) + 6)
    assert any("e.md" in line for line in describe(found)) and any("f.md" in line for line in describe(found))
    texts = list(survey(config(tmp_path), SCRATCH).documents())
    assert [Entry(item.path, len(item.text)) for item in texts] == found.entries
    assert texts[0].text == TEXT + "\nmore\n"
    assert [item.path for item in survey(config(tmp_path, num_files=1), SCRATCH).documents()] == ["a/z.md"]


def test_the_corpus_hash_follows_names_and_bytes(tmp_path: Path) -> None:
    write(tmp_path, a_md=TEXT, b_md=TEXT + "!")
    before = survey(config(tmp_path), SCRATCH).sha256
    assert survey(config(tmp_path), SCRATCH).sha256 == before
    (tmp_path / "unwanted.png").write_text("x")
    assert survey(config(tmp_path), SCRATCH).sha256 == before
    (tmp_path / "b.md").write_text(TEXT + "?")
    changed = survey(config(tmp_path), SCRATCH).sha256
    (tmp_path / "b.md").rename(tmp_path / "c.md")
    assert len({before, changed, survey(config(tmp_path), SCRATCH).sha256}) == 3


@given(st.lists(st.sampled_from([TEXT, TEXT + " More.", "", "short", "caf\xe9 " * 20]), min_size=1, max_size=8))
def test_the_preflight_sees_what_the_reader_reads(
    tmp_path_factory: pytest.TempPathFactory, contents: list[str]
) -> None:
    folder = tmp_path_factory.mktemp("corpus")
    for number, content in enumerate(contents):
        (folder / f"{number}.md").write_bytes(content.encode("cp1252"))
    texts = {content.strip() for content in contents if len(content) >= 50}
    if not texts:
        with pytest.raises(PipelineError):
            survey(config(folder), SCRATCH)
        return
    found = survey(config(folder), SCRATCH)
    read = list(survey(config(folder), SCRATCH).documents())
    assert [Entry(item.path, len(item.text)) for item in read] == found.entries
    assert {item.text.strip() for item in read} == texts
    assert found.found == len(contents)


def test_nothing_usable_says_which_way(tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match=r"no file in .* matches"):
        survey(config(tmp_path), SCRATCH)
    write(tmp_path, a_md="short", b_md="too")
    with pytest.raises(PipelineError, match=r"all 2 documents .* shorter than min_text_length=50"):
        survey(config(tmp_path), SCRATCH)
    write(tmp_path, c_md="", d_md=b"\x00\xff")
    with pytest.raises(PipelineError, match=r"2 too short, 1 empty, 1 unreadable; d.md: no encoding fits"):
        survey(config(tmp_path), SCRATCH)


def test_a_missing_folder_and_a_foreign_address_are_clear_errors(tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match="is not a folder"):
        survey(config(tmp_path / "none"), SCRATCH)
    with pytest.raises(PipelineError, match="cannot be read"):
        survey(SdgConfig(corpus_dir="s3://bucket/x"), SCRATCH)


def test_a_small_or_mostly_short_corpus_is_warned_about(tmp_path: Path) -> None:
    write(tmp_path, a_md=TEXT, b_md="x", c_md="y")
    found = warnings(survey(config(tmp_path), SCRATCH))
    assert len(found) == 2
    assert "2 of 3" in found[1]


def test_what_is_no_file_or_has_no_readable_name_is_listed(tmp_path: Path) -> None:
    write(tmp_path, a_md=TEXT)
    os.mkfifo(tmp_path / "b.md")
    (tmp_path / "c.md").symlink_to(tmp_path / "nowhere")
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/d\xff.md")).write_text(TEXT)
    found = survey(config(tmp_path), SCRATCH)
    assert found.left_out[UNREADABLE].examples == [
        ("b.md", "not a file"),
        ("c.md", "not a file"),
        ("d\\udcff.md", "its name is not UTF-8"),
    ]
    assert [item.path for item in survey(config(tmp_path), SCRATCH).documents()] == ["a.md"]


def test_long_lists_are_shown_in_part(tmp_path: Path) -> None:
    write(tmp_path, a_md=TEXT, **{f"s{number:02}_md": "short" for number in range(15)})
    [line] = [line for line in describe(survey(config(tmp_path), SCRATCH)) if line.startswith(SHORT)]
    assert "s09.md" in line and "s10.md" not in line and line.endswith("and 5 more")
