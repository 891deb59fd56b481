import json
from pathlib import Path

import pytest
from pipeline_sdg.bundles import plan_bundles

from pipeline.errors import PipelineError
from pipeline.schemas.sdg import SdgConfig

NAMES = ["a.md", "b.md", "faq.csv#x//1", "sub/c.md", "sub/d.md"]


def plan(path: Path, names: list[str] = NAMES, **keys: object) -> list[tuple[int, ...]]:
    return plan_bundles(names, SdgConfig(multi_doc=True, multi_doc_manifest=str(path), **keys), [])


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("m.json", json.dumps([["sub/d.md", "a.md"], ["faq.csv#x//1"]])),
        ("m.json", "\ufeff" + json.dumps({"bundles": [{"docs": ["sub/d.md", "a.md"]}, ["faq.csv#x//1"]]})),
        ("m.yaml", "- [./sub/d.md, a.md]\n- docs: ['faq.csv#x//1']\n  note: an own one\n"),
        ("m.yml", "bundles:\n  - docs: [sub/d.md, a.md]\n  - ['faq.csv#x//1']\n"),
        ("manifest", json.dumps([["sub/d.md", "a.md"], ["faq.csv#x//1"]])),
    ],
)
def test_the_manifest_comes_first_and_the_rest_is_bundled(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    assert plan(tmp_path / name) == [(4, 0), (2,), (1, 3)]


def test_the_same_documents_are_bundled_whatever_their_order_in_the_corpus(tmp_path: Path) -> None:
    (tmp_path / "m.json").write_text(json.dumps([["sub/d.md", "a.md"], ["b.md", "sub/c.md"]]))
    other = NAMES[::-1]
    named = [
        [tuple(names[place] for place in bundle) for bundle in plan(tmp_path / "m.json", names)]
        for names in (NAMES, other)
    ]
    assert named[0] == named[1]


def test_unknown_and_repeated_names_are_left_out_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "m.yaml").write_text("- [a.md, gone.md, a.md]\n- [nowhere.md]\n- [b.md, a.md]\n")
    assert plan(tmp_path / "m.yaml", NAMES[:2]) == [(0,), (1,)]
    unknown, repeated = [record.getMessage() for record in caplog.records]
    assert "2 names" in unknown and "gone.md, nowhere.md" in unknown and "m.yaml" in unknown
    assert "2 names" in repeated and "a.md, a.md" in repeated


def test_a_bundle_that_is_too_large_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "m.json").write_text(json.dumps([["a.md"], ["b.md", "sub/c.md", "sub/d.md"]]))
    with pytest.raises(PipelineError, match=r"m\.json: bundle 2 has 3 documents .*max_docs_per_bundle is 2") as error:
        plan(tmp_path / "m.json", max_docs_per_bundle=2)
    assert error.value.fix and "max_docs_per_bundle" in error.value.fix
    assert plan(tmp_path / "m.json", max_docs_per_bundle=3)[:2] == [(0,), (1, 3, 4)]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"[[", "neither JSON nor YAML"),
        (b"\xff\xfe\x00[", "neither JSON nor YAML"),
        (b"[" * 3_000, "neither JSON nor YAML"),
        (b"", "holds no list"),
        (b"bundle: [[a.md]]", "holds no list"),
        (b"- a.md\n- b.md", "bundle 1 is no list of documents: 'a.md'"),
        (b"- [a.md]\n- doc: [b.md]", "bundle 2 is no list of documents"),
        (b"- [a.md, 2024]", "bundle 1 names a document that is no text: 2024"),
        (b"- [a.md, '']", "bundle 1 names a document that is no text: ''"),
    ],
)
def test_a_manifest_that_cannot_be_used_is_one_clear_error(tmp_path: Path, text: bytes, said: str) -> None:
    (tmp_path / "m.yaml").write_bytes(text)
    with pytest.raises(PipelineError, match=r"m\.yaml") as error:
        plan(tmp_path / "m.yaml")
    assert said in error.value.message and error.value.fix and "\n" not in error.value.message


def test_a_missing_manifest_is_named(tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match=r"cannot read .*none\.json: No such file"):
        plan(tmp_path / "none.json")
