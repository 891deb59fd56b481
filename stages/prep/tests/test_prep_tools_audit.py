"""`data audit`: every issue is found where it stands, and nowhere else; the cleaned copy holds what it says."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pipeline_prep.tools import main
from pipeline_prep.tools.audit_rows import ISSUES

from pipeline.records.passages import Passage, write_corpus

LONG = "The pump of the northern station stops when the water in the upper tank reaches the second red mark"
TEXTS = {
    "p1": LONG + " on its wall.",
    "p2": LONG + " on the wall.",  # one word apart
    "p3": "Rosin lets the bow grip the string of a violin.",
    "p4": "Yeast makes the dough rise before it goes into the oven.",
    "p5": "Moraines mark how far the ice of a glacier once came.",
}
OPTIONS = {
    "output": None, "drop_invalid_negatives": False, "max_findings": 50, "min_negatives": 0, "allow_findings": False,
    "near_duplicates": True, "qrels": None, "overwrite": False,
}  # fmt: skip


def row(name, positives, negatives, question="", **more):
    return {
        "question_id": name, "question": question or f"what about {name}?", "corpus_id": "c",
        "pos_doc": [item if isinstance(item, dict) else {"id": item, "score": 0.9} for item in positives],
        "neg_doc": [item if isinstance(item, dict) else {"id": item, "score": 0.5} for item in negatives],
        **more,
    }  # fmt: skip


@pytest.fixture
def write(tmp_path):
    write_corpus(tmp_path / "corpus", [Passage(name, text) for name, text in TEXTS.items()], "c")

    def write_rows(*rows, name="mined.json"):
        path = tmp_path / name
        document = {"corpus": {"path": "./corpus/"}, "mining": {"args": {"k": 5}}, "data": list(rows)}
        path.write_text(json.dumps(document))
        return path

    return write_rows


@pytest.fixture
def audit(capsys, caplog):
    caplog.set_level("INFO", "pipeline")

    def run(path, **options):
        code = main.main(["audit", json.dumps({"file": str(path), **OPTIONS, **options}, default=str)])
        shown = capsys.readouterr()
        return code, json.loads(shown.out) if shown.out else None, shown.err + caplog.text

    return run


def issues(report, prefix=""):
    return [
        (item["row"], item["issue"], item.get("negative_id") or item.get("positive_id"))
        for item in report[f"{prefix}findings"]
    ]


GOOD = row("q1", ["p1"], ["p3", "p4"])
CASES = {
    "empty_question": ([row("q1", ["p1"], ["p3"], question=" ")], (0, None)),
    "duplicate_question_id": ([GOOD, row("q1", ["p1"], ["p3"])], (1, None)),
    "unknown_corpus": ([GOOD | {"corpus_id": "other"}], (0, None)),
    "no_positive": ([row("q1", [], ["p3"])], (0, None)),
    "unknown_positive": ([row("q1", ["p9"], ["p3"])], (0, "p9")),
    "missing_positive_score": ([row("q1", [{"id": "p1"}], ["p3"])], (0, "p1")),
    "non_finite_positive_score": ([row("q1", [{"id": "p1", "score": math.inf}], ["p3"])], (0, "p1")),
    "negative_is_known_positive": ([row("q1", ["p1"], ["p3"], known_pos_ids=["p1", "p3"])], (0, "p3")),
    "negative_near_duplicate_of_positive": ([row("q1", ["p1"], ["p3", "p2"])], (0, "p2")),
    "unknown_negative": ([row("q1", ["p1"], ["p9"])], (0, "p9")),
    "duplicate_negative": ([row("q1", ["p1"], ["p3", "p4", "p3"])], (0, "p3")),
    "missing_negative_score": ([row("q1", ["p1"], [{"id": "p3", "score": None}])], (0, "p3")),
    "non_finite_negative_score": ([row("q1", ["p1"], [{"id": "p3", "score": -math.inf}])], (0, "p3")),
}  # fmt: skip


@pytest.mark.parametrize("issue", CASES)
def test_every_issue_is_found_where_it_stands_and_nothing_else(write, audit, issue):
    rows, (number, name) = CASES[issue]
    code, report, _ = audit(write(*rows))
    assert issues(report) == [(number, issue, name)]
    assert code == 1 and report["summary"][issue] == report["summary"]["total_findings"] == 1
    assert report["summary"]["rows_with_findings"] == 1


def test_siblings_are_told_by_lineage_and_by_their_text(write, audit):
    unrolled = [
        row("q1_0", ["p1"], ["p3"], question="Which one?", original_question_id="q1"),
        row("q1_1", ["p3"], ["p4"], question="Which one?", original_question_id="q1"),
        row("q2", ["p4"], ["p5"], question="which  ONE?"),
    ]
    code, report, _ = audit(write(*unrolled))
    assert issues(report) == [
        (0, "negative_is_sibling_positive", "p3"),
        (1, "negative_is_sibling_positive", "p4"),
    ]
    assert [item.get("original_question_id") for item in report["findings"]] == ["q1", "q1"]
    assert code == 1


def test_a_good_file_has_no_findings_and_exit_code_0(write, audit):
    code, report, shown = audit(write(GOOD, row("q2", ["p5"], ["p4"])), min_negatives=1)
    assert code == 0 and report["findings"] == [] and "no findings" in shown
    assert report["summary"] == {
        "records": 2, "negatives": 3, "rows_with_findings": 0,
        **{name: 0 for name in ISSUES if name != "too_few_negatives"},
        "rows_with_too_few_negatives": 0, "dropped_negatives": 0, "total_findings": 0,
    }  # fmt: skip


def test_too_few_negatives_counts_good_ones_alone(write, audit):
    path = write(row("q1", ["p1"], ["p3", "p9"]))
    assert audit(path, min_negatives=1)[1]["summary"]["rows_with_too_few_negatives"] == 0
    code, report, _ = audit(path, min_negatives=2)
    assert report["summary"]["rows_with_too_few_negatives"] == 1
    assert issues(report) == [(0, "unknown_negative", "p9"), (0, "too_few_negatives", None)] and code == 1


def test_the_cleaned_copy_keeps_everything_but_the_bad_negatives(write, audit, tmp_path):
    bad = row(
        "q1", ["p1"], ["p1", "p3", "p3", {"id": "p4", "score": math.nan}, "p5"],
        original_question_id="q", known_pos_ids=["p1"], metadata={"type": "x"},
    )  # fmt: skip
    path, output = write(bad, GOOD | {"question_id": "q2", "question": "else?"}), tmp_path / "out" / "clean.json"
    code, report, _ = audit(path, output=output, drop_invalid_negatives=True)
    assert code == 0 and report["remaining_findings"] == []
    assert report["summary"]["dropped_negatives"] == report["remaining_summary"]["dropped_negatives"] == 3
    assert (report["summary"]["negatives"], report["remaining_summary"]["negatives"]) == (7, 4)
    cleaned = json.loads(output.read_text())
    assert cleaned["corpus"] == {"path": "../corpus"} and cleaned["mining"] == {"args": {"k": 5}}
    assert cleaned["data"][0] == bad | {"neg_doc": [{"id": "p3", "score": 0.5}, {"id": "p5", "score": 0.5}]}
    again, of_copy, _ = audit(output)
    assert again == 0 and of_copy["summary"]["negatives"] == 4
    assert audit(path, output=output, drop_invalid_negatives=True)[2].startswith("error: ")  # it is there already


def test_what_cleaning_cannot_mend_stays_a_finding(write, audit, tmp_path):
    path = write(row("q1", [{"id": "p1", "score": math.nan}], ["p3", "p3"]))
    output = tmp_path / "clean.json"
    code, report, _ = audit(path, output=output, drop_invalid_negatives=True)
    assert code == 1 and issues(report, "remaining_") == [(0, "non_finite_positive_score", "p1")]
    assert json.loads(output.read_text())["data"][0]["pos_doc"] == [{"id": "p1", "score": None}]
    assert json.loads(output.read_text())["corpus"] == {"path": "./corpus/"}
    assert audit(path, allow_findings=True)[0] == 0


def test_judgements_of_a_test_set_are_held_against_the_rows(write, audit, tmp_path):
    qrels = tmp_path / "beir" / "qrels" / "test.tsv"
    qrels.parent.mkdir(parents=True)
    qrels.write_text("query-id\tcorpus-id\tscore\nt1\tp3\t1\nt1\tp5\t0\n")
    path = write(row("q1", ["p1"], ["p3", "p5"], question="Asked THERE?"), row("t1", ["p3"], ["p4"]))
    _, by_id, _ = audit(path, qrels=qrels)
    assert issues(by_id) == [(1, "question_in_test_qrels", None), (1, "positive_in_test_qrels", "p3")]
    (tmp_path / "beir" / "queries.jsonl").write_text('{"_id": "t1", "text": "asked there?"}\n')
    _, by_text, _ = audit(path, qrels=tmp_path / "beir")
    assert issues(by_text) == [
        (0, "question_in_test_qrels", None),
        (0, "negative_judged_relevant", "p3"),
        (1, "positive_in_test_qrels", "p3"),
    ]
    training = qrels.rename(qrels.with_name("train.tsv"))
    assert issues(audit(path, qrels=training)[1]) == [(0, "negative_judged_relevant", "p3")]
    training.write_text("t1\tanother\t1\n")
    assert "none of the judged passages is in the corpus" in audit(path, qrels=training)[2]


def test_the_report_shows_the_first_findings_and_counts_all(write, audit):
    path = write(row("q1", ["p1"], ["p9", "p8", "p7"]))
    _, report, _ = audit(path, max_findings=2)
    assert len(report["findings"]) == 2 and report["summary"]["unknown_negative"] == 3
    assert audit(write(row("q1", ["p1"], ["p2"])), near_duplicates=False)[0] == 0


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "not valid JSON"),
        ("[]", "not a training file"),
        ('{"corpus": {"path": "./nowhere"}, "data": []}', "merlin_metadata.json"),
        ('{"corpus": {}, "data": []}', "corpus path"),
        ('{"corpus": {"path": "./corpus"}, "data": [3]}', "row 0"),
        ('{"corpus": {"path": "./corpus"}, "data": [{"question_id": "a"}]}', "lacks question, corpus_id"),
        (json.dumps({"corpus": {"path": "corpus"}, "data": [GOOD | {"neg_doc": [{"text": "x"}]}]}), "row 0 (q1)"),
        (json.dumps({"corpus": {"path": "corpus"}, "data": [GOOD | {"question_id": None}]}), "question_id"),
    ],
)
def test_a_file_that_cannot_be_audited_is_one_error(write, audit, text, named):
    path = write(GOOD)
    path.write_text(text)
    code, report, shown = audit(path)
    assert code == 1 and report is None
    assert shown.startswith("error: ") and named in shown


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.sampled_from(["", "p1", "p9", "q1", "c", "\ud800", "\0"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["id", "score"]), inner, max_size=2),
    max_leaves=5,
)
fields = st.dictionaries(
    st.sampled_from([*GOOD, "original_question_id", "known_pos_ids", "other"]), values, min_size=1, max_size=2
)


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(fields, min_size=1, max_size=2), st.booleans())
def test_rows_of_any_content_give_a_report_or_one_error(write, audit, tmp_path, drawn, clean):
    path = write(*(GOOD | changed for changed in drawn))
    output = tmp_path / "clean.json"
    output.unlink(missing_ok=True)
    options = {"output": output, "drop_invalid_negatives": True} if clean else {}
    code, report, shown = audit(path, **options)
    if report is None:
        assert code == 1 and "error: " in shown and not output.exists()
    else:
        left = report["remaining_summary" if clean else "summary"]["total_findings"]
        assert code == int(left > 0) and output.exists() == clean


def test_output_never_touches_the_input(write, audit, tmp_path):
    path = write(row("q1", ["p1"], ["p9"]))
    before = path.read_bytes()
    for options in ({"output": path}, {"output": tmp_path / "link.json", "overwrite": True}, {"output": None}):
        (tmp_path / "link.json").unlink(missing_ok=True)
        (tmp_path / "link.json").symlink_to(path)
        given = {name: value for name, value in options.items() if value is not None}
        code, report, shown = audit(path, drop_invalid_negatives=True, **given)
        assert code == 1 and report is None and shown.startswith("error: ")
    assert path.read_bytes() == before
