"""Groups of questions, wins and losses: counted by hand on a small test set."""

from __future__ import annotations

import json

import numpy as np
import pytest
from pipeline_eval.breakdown import (
    DOCUMENT,
    EXCERPT,
    LENGTH,
    REST,
    UNKNOWN,
    Breakdown,
    breakdown,
    explain,
    extremes,
)
from pipeline_eval.breakdown_page import console_lines, write_breakdowns

from pipeline.records.beir import TestSet, read_beir, write_beir
from pipeline.records.passages import Passage
from pipeline.records.results import write_query_scores

METRIC = "NDCG@10"


def scored(values):
    return {query: {METRIC: value} for query, value in values.items()}


@pytest.fixture
def typed(tiny) -> TestSet:
    """Six questions: three of one type, two of another, one of none; passages with their documents."""
    tiny.metadata = {
        "q1": {"query_type": "multi_hop", "hop_count": 3},
        "q2": {"query_type": "multi_hop", "hop_count": 10},
        "q3": {"query_type": "multi_hop", "hop_count": 10},
        "q4": {"query_type": "structural", "hop_count": 1},
        "q5": {"query_type": "structural", "hop_count": 1},
        "q6": {},
    }
    return tiny


BASE = scored({"q1": 0.5, "q2": 0.5, "q3": 0.2, "q4": 1.0, "q5": 0.0, "q6": 0.3})
TUNED = scored({"q1": 1.0, "q2": 0.6, "q3": 0.2, "q4": 0.4, "q5": 0.0, "q6": 1.0})
SCORES = {"base": BASE, "tuned": TUNED}
VALUES = {name: np.array([item[METRIC] for item in scores.values()]) for name, scores in SCORES.items()}


def rows_by(rows, by):
    return {row.group: row for row in rows if row.by == by}


def test_groups_by_what_sdg_noted(typed):
    rows = rows_by(breakdown(typed, SCORES, "base", "tuned", METRIC), "query_type")
    assert list(rows) == ["multi_hop", "structural", UNKNOWN]
    found = rows["multi_hop"]
    assert (found.questions, found.a, found.b, found.delta, found.ci95) == (3, 0.4, 0.6, 0.2, None)
    assert rows["structural"].delta == -0.3 and rows[UNKNOWN].questions == 1


def test_numbers_are_in_the_order_of_their_value_and_unknown_fields_are_left_out(typed):
    rows = breakdown(typed, SCORES, "base", "tuned", METRIC)
    assert list(rows_by(rows, "hop_count")) == ["1", "3", "10", UNKNOWN]
    assert {row.by for row in rows} == {"query_type", "hop_count", LENGTH, DOCUMENT}


def test_groups_by_number_of_words(typed):
    typed.queries = {f"q{i}": " ".join(["word"] * count) for i, count in enumerate((1, 5, 6, 10, 20, 21), 1)}
    rows = rows_by(breakdown(typed, SCORES, "base", "tuned", METRIC), LENGTH)
    assert {name: row.questions for name, row in rows.items()} == {"1-5": 2, "6-10": 2, "11-20": 1, "21+": 1}
    assert list(rows) == ["1-5", "6-10", "11-20", "21+"]


def many_documents(questions: int) -> TestSet:
    """`doc0` answers three questions, each other document one; the last question needs doc0 and another one."""
    names = [["doc0"] if i < 2 else [f"doc{i}"] for i in range(questions - 1)] + [["doc0", "doc99"]]
    corpus = {f"p{i}": Passage(f"p{i}", f"text {i}", "", tuple(files)) for i, files in enumerate(names)}
    queries = {f"q{i}": f"question {i}" for i in range(questions)}
    return TestSet("set", corpus, queries, {f"q{i}": {f"p{i}": 1} for i in range(questions)})


def test_the_largest_documents_are_shown_and_the_rest_together():
    test_set = many_documents(15)
    scores = {name: scored(dict.fromkeys(test_set.queries, value)) for name, value in (("a", 0.2), ("b", 0.7))}
    rows = rows_by(breakdown(test_set, scores, "a", "b", METRIC), DOCUMENT)
    assert {name: row.questions for name, row in rows.items()} == {"doc0": 3, REST: 12}
    assert rows[REST].ci95 == pytest.approx((0.5, 0.5))


def test_a_question_about_two_documents_counts_at_both():
    test_set = many_documents(4)
    scores = {"a": scored(dict.fromkeys(test_set.queries, 0.5)), "b": scored(dict.fromkeys(test_set.queries, 0.5))}
    rows = rows_by(breakdown(test_set, scores, "a", "b", METRIC), DOCUMENT)
    assert {name: row.questions for name, row in rows.items()} == {"doc0": 3, "doc2": 1, "doc99": 1}


def test_an_interval_needs_ten_questions():
    """Nine short and ten long questions, the same differences: +0.1 for all but one."""
    queries = {f"q{i}": "short" if i < 9 else "one two three four five six" for i in range(19)}
    test_set = TestSet("set", {"p": Passage("p", "text")}, queries, {query: {"p": 1} for query in queries})
    after = {query: 0.6 for query in queries} | {"q0": 0.5, "q9": 0.5}
    scores = {"a": scored(dict.fromkeys(queries, 0.5)), "b": scored(after)}
    rows = rows_by(breakdown(test_set, scores, "a", "b", METRIC), LENGTH)
    assert rows["1-5"].ci95 is None
    low, high = rows["6-10"].ci95
    assert 0 < low < rows["6-10"].delta == 0.09 < high <= 0.1 + 1e-9


def test_the_largest_gains_and_losses_with_their_texts(typed):
    firsts = {"base": {"q1": "d_1", "q4": "d_3"}, "tuned": {"q1": "d_0", "q4": "d_2"}}
    gains, losses = extremes(typed, SCORES, firsts, "base", "tuned", METRIC, count=2)
    assert [(item.question, item.delta) for item in gains] == [("q6", 0.7), ("q1", 0.5)]
    assert [(item.question, item.delta) for item in losses] == [("q4", -0.6)]
    q1, q4 = gains[1], losses[0]
    assert q1.text == typed.queries["q1"] and q1.relevant.text.startswith("The lift pump runs")
    assert (q1.first_a.passage, q1.first_b.passage, q1.first_a.documents) == ("d_1", "d_0", ("lamp.md",))
    assert q4.first_b.text.startswith("The cistern holds") and gains[0].first_a is None


def test_the_best_judged_passage_is_shown_in_one_short_line(typed):
    typed.corpus["long"] = Passage("long", "many\n\nwords  " * 60)
    typed.qrels["q6"] = {"d_5": 1, "long": 2}
    gains, _ = extremes(typed, SCORES, {"base": {}, "tuned": {}}, "base", "tuned", METRIC, count=1)
    shown = gains[0].relevant
    assert shown.passage == "long" and shown.text.startswith("many words many") and len(shown.text) == EXCERPT


@pytest.fixture
def explained(tmp_path, typed) -> Breakdown:
    """Made of the files that a run leaves, the test set read back from its folder."""
    files = {}
    for name, scores in SCORES.items():
        files[name] = tmp_path / f"{name}.jsonl"
        write_query_scores(files[name], scores, {"q4": [("d_3" if name == "base" else "d_2", 1.0)]})
    test_set = read_beir(write_beir(tmp_path / "beir", typed), name="synthetic")
    return explain(test_set, files, "base", "tuned", METRIC, samples=200)


def test_files_of_a_run_are_explained(explained):
    assert (explained.test_set, explained.a, explained.b, explained.questions) == ("synthetic", "base", "tuned", 6)
    assert rows_by(explained.rows, "query_type")["multi_hop"].delta == 0.2
    assert rows_by(explained.rows, DOCUMENT)["pump.md"].questions == 1
    assert explained.losses[0].first_a.documents == ("sail.md",)
    assert explained.gains[0].first_b is None


def test_written_as_json_and_as_a_page(tmp_path, explained):
    data, page, *pictures = write_breakdowns(
        tmp_path / "out", [explained], VALUES, {"base": "base", "tuned": "tuned model"}
    )
    (kept,) = json.loads(data.read_text())
    assert kept["losses"][0]["question"] == "q4" and kept["losses"][0]["delta"] == -0.6
    assert {row["by"] for row in kept["rows"]} == {"query_type", "hop_count", LENGTH, DOCUMENT}
    text = page.read_text()
    assert text.startswith("![systems](systems.png)\n\n![breakdown](breakdown.png)\n\n# synthetic")
    assert [path.name for path in pictures] == ["systems.png", "breakdown.png"]
    assert "| multi\\_hop | 3 | 0.4000 | 0.6000 | +0.2000 |  |" in text
    assert "### too windy for the nets?" in text and "- first of base: the right one" in text
    assert "- first of tuned model: `d_2` (cistern.md): The cistern holds" in text


def test_another_right_passage_is_told_apart_from_a_wrong_one(tmp_path, typed):
    typed.qrels["q1"] = {"d_0": 2, "d_1": 1}
    firsts = {"base": {"q1": "d_2"}, "tuned": {"q1": "d_1"}}
    gains, _ = extremes(typed, SCORES, firsts, "base", "tuned", METRIC)
    found = Breakdown("set", "base", "tuned", METRIC, 6, [], gains, [])
    page = write_breakdowns(tmp_path, [found], VALUES)[1].read_text()
    assert "- first of base: `d_2` (cistern.md)" in page
    assert "- first of tuned: right too: `d_1` (lamp.md)" in page
    assert "- first of base: nothing" in page  # q6
    assert not (tmp_path / "breakdown.png").exists()  # no groups


def test_texts_of_others_do_not_break_the_page(tmp_path, explained):
    explained.rows[0] = type(explained.rows[0])("query_type", "a|b\n# <b>", 1, 0.0, 0.0, 0.0, None)
    page = write_breakdowns(tmp_path, [explained], VALUES)[1].read_text()
    assert "| a\\|b \\# \\<b\\> | 1 |" in page


def test_nothing_to_explain_removes_old_files(tmp_path, explained):
    write_breakdowns(tmp_path, [explained], VALUES)
    assert write_breakdowns(tmp_path, [], {}) == []
    assert not [path for path in tmp_path.iterdir() if path.suffix in (".png", ".md", ".json")]


def test_the_console_shows_types_and_three_of_each(explained):
    lines = console_lines(explained, {"tuned": "tuned model"})
    assert lines[0] == "synthetic: NDCG@10 by query_type, base -> tuned model"
    assert lines[1].split()[:3] == ["multi_hop", "3", "questions"] and lines[1].endswith("+0.200")
    assert "synthetic: largest losses of tuned model over base (NDCG@10)" in lines
    assert lines[-1].endswith("(-0.600)  too windy for the nets?")
    assert sum(line.startswith("  ") and "(+" in line for line in lines) == 3


def test_a_set_without_types_has_no_table_on_the_console(tiny):
    values = dict(zip(tiny.queries, np.linspace(0, 1, 6), strict=True))
    scores = {"a": scored(values), "b": scored(values)}
    found = Breakdown("set", "a", "b", METRIC, 6, breakdown(tiny, scores, "a", "b", METRIC), [], [])
    assert console_lines(found) == []
