from __future__ import annotations

import json

import pytest
from pipeline_prep.groups import ties_of_groups

from pipeline.errors import PipelineError

OURS = {"guide/pump.md", "guide/valve.md", "old/pump_v1.txt", "faq.md", "notes.md"}


@pytest.fixture
def listed(tmp_path):
    def write(data, name="groups.json"):
        path = tmp_path / name
        path.write_text(json.dumps(data), encoding="utf-8")
        return str(path)

    return write


def test_names_are_found_by_path_then_without_ending_then_by_base_name(listed):
    path = listed(
        {
            "exact": {"groups": {"g": ["./guide//pump.md", "old\\pump_v1.pdf", "absent.md"]}},
            "semantic": {"clusters": {"c": ["/srv/docs/faq.html", "/srv/docs/notes.html"]}},
        }
    )
    ties = [("faq.md", "notes.md"), ("guide/pump.md", "old/pump_v1.txt")]
    assert ties_of_groups([path], "cluster", OURS) == ties
    assert ties_of_groups([path], "dedupped", OURS) == ties


def test_dedupped_joins_groups_that_overlap_over_kinds_and_files(listed):
    first = listed({"exact": {"groups": {"g": ["guide/pump.md", "faq.md"]}}})
    second = listed(
        {"fuzzy": {"groups": {"g": ["faq.md", "between.md"], "h": ["between.md", "notes.md"]}}}, "more.json"
    )
    assert ties_of_groups([first, second], "dedupped", OURS) == [("faq.md", "guide/pump.md", "notes.md")]


def test_a_document_in_two_clusters_is_an_error(listed):
    path = listed({"semantic": {"clusters": {"a": ["faq.md"], "b": ["notes.md", "faq.md"]}}})
    with pytest.raises(PipelineError, match=r"'faq.md' stands in 2 clusters: .*semantic.clusters.a; .*clusters.b"):
        ties_of_groups([path], "cluster", OURS)


@pytest.mark.parametrize(
    ("groups", "ours", "names"),
    [
        ({"a": ["x/pump.md"], "b": ["y/pump.md"]}, {"pump.md"}, "pump.md may be any of x/pump.md, y/pump.md"),
        ({"a": ["pump.md"], "b": ["pump.txt"]}, {"pump.rst"}, "pump.rst may be any of pump.md, pump.txt"),
        ({"a": ["pump.md"]}, {"x/pump.md", "y/pump.md"}, "x/pump.md, y/pump.md may be any of pump.md"),
    ],
)
def test_ambiguous_names_are_an_error_that_names_them(listed, groups, ours, names):
    with pytest.raises(PipelineError, match=names):
        ties_of_groups([listed({"exact": {"groups": groups}})], "dedupped", ours)


def test_candidates_of_one_group_are_not_ambiguous(listed):
    path = listed({"exact": {"groups": {"a": ["x/pump.md", "y/pump.md", "faq.md"]}}})
    assert ties_of_groups([path], "dedupped", {"pump.md", "faq.md"}) == [("faq.md", "pump.md")]


def test_a_name_that_is_found_stands_for_no_other_document(listed):
    path = listed({"exact": {"groups": {"a": ["x/readme.md", "faq.md"]}}})
    assert ties_of_groups([path], "dedupped", {"x/readme.md", "y/readme.md", "faq.md"}) == [("faq.md", "x/readme.md")]


def test_documents_of_a_frozen_test_set_are_matched_apart(listed):
    path = listed({"exact": {"groups": {"a": ["faq.md", "pump.md"]}}})
    assert ties_of_groups([path], "dedupped", {"faq.md"}, {"pump.md"}) == [("faq.md", "pump.md")]
    ours = {"faq.md", "x/pump.md"}
    assert ties_of_groups([path], "dedupped", ours, {"pump.md"}) == [("faq.md", "pump.md", "x/pump.md")]
    with pytest.raises(PipelineError, match=r"none of the 2 documents in .* is one of the 1 with questions"):
        ties_of_groups([path], "dedupped", {"other.md"}, {"pump.md"})


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        ([], "holds none of exact, fuzzy, semantic"),
        ({"groups": {}}, "holds none of exact, fuzzy, semantic"),
        ({"exact": {}}, "exact holds neither groups nor clusters"),
        ({"exact": {"groups": []}}, "exact.groups must be an object"),
        ({"exact": {"groups": {"g": "a.md"}}}, "exact.groups.g must be a list of names"),
        ({"exact": {"groups": {"g": [1]}}}, "exact.groups.g must be a list of names"),
        ({"exact": {"groups": {"g": ["other.md"]}}}, "none of the 1 documents in .*groups.json is one of the 5"),
    ],
)
def test_malformed_files_are_one_clear_error(listed, data, problem):
    with pytest.raises(PipelineError, match=problem) as error:
        ties_of_groups([listed(data)], "dedupped", OURS)
    assert "groups.json" in error.value.message and error.value.fix


def test_a_missing_or_broken_file_is_a_clear_error(tmp_path):
    with pytest.raises(PipelineError, match=r"absent\.json"):
        ties_of_groups([str(tmp_path / "absent.json")], "dedupped", OURS)
    (tmp_path / "cut.json").write_text('{"exact":')
    with pytest.raises(PipelineError, match=r"cut\.json"):
        ties_of_groups([str(tmp_path / "cut.json")], "dedupped", OURS)
