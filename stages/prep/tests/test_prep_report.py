"""The mining report, the examples to read and the picture."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.image import imread
from pipeline_prep.funnel import Funnel
from pipeline_prep.mining.pictures import similarity_histogram
from pipeline_prep.mining.report import examples, examples_page, full_report, mining_section, percentiles
from pipeline_prep.mining.task import Mined

from pipeline.records.sources.ragged import Ragged


def ragged(lists):
    values = [value for item in lists for value in item]
    return Ragged.of_counts(np.array([len(item) for item in lists], np.int64), np.array(values, np.int64))


def found_of(task, negatives, scores, positive_scores, wanted=2, sources=None, **more):
    """`negatives`: a list of passages for each row; `scores` and `sources`: one for each of them."""
    promoted = more.get("promoted", ragged([[]] * len(task)))
    return Mined(
        wanted, ragged(negatives), np.array(scores, np.float32),
        np.array(sources or [0] * len(scores), np.uint8), np.array(positive_scores, np.float32),
        promoted, np.zeros(len(promoted.values), np.float32), more.get("removed", {}),
    )  # fmt: skip


def test_the_section_counts_what_was_mined(mining_task):
    task = mining_task(["p"] * 6, ["a", "b", "c"], [[0, 1], [1], [2]], hidden=[5])
    mined = found_of(
        task, [[3, 4], [3], []], [0.65, 0.5, 0.9], [0.8, 0.6, 0.95, 0.1],
        sources=[3, 0, 1], promoted=ragged([[], [4], []]), removed={"above_ceiling": 7, "contains_answer": 2},
    )  # fmt: skip
    assert mining_section(task, mined) == {
        "rows": 3,
        "negatives": 3,
        "negatives_by_source": {"vectors": 1, "bm25": 1, "random": 0, "file": 1},
        "rows_short_of_negatives": 2,
        "rows_without_negatives": 1,
        "left_out": {"above_ceiling": 7, "contains_answer": 2, "passages_kept_for_test": 1},
        "promoted_to_positive": 1,
        "negatives_above_positive": 0.3333,  # 0.65 is above the row's lowest positive, 0.6
        "positive_similarity": percentiles(np.array([0.8, 0.6, 0.95, 0.1], np.float32)),
        "negative_similarity": percentiles(np.array([0.65, 0.5, 0.9], np.float32)),
    }  # fmt: skip


@pytest.mark.parametrize("rows", [0, 1])
def test_a_report_on_nothing_is_json_all_the_same(mining_task, rows):
    task = mining_task(["p"], ["a"] * rows, [[0]] * rows)
    mined = found_of(task, [[]] * rows, [], [np.nan] * rows)
    section = mining_section(task, mined)
    assert (section["negatives"], section["rows_without_negatives"]) == (0, rows)
    report = full_report({"margin": 0.95}, Funnel(), section, section)
    assert json.loads(json.dumps(report, allow_nan=False))["train"]["positive_similarity"] == {}
    assert examples(task, mined) == [] and examples_page([]).startswith("# Examples")


@given(st.lists(st.one_of(st.floats(-1, 1, width=32), st.just(np.nan), st.just(np.inf)), max_size=20))
@settings(deadline=None)
def test_percentiles_are_of_the_finite_scores(scores):
    found = percentiles(np.array(scores, np.float32))
    finite = sorted(score for score in scores if np.isfinite(score))
    assert bool(found) == bool(finite)
    if finite:
        assert (found["p0"], found["p100"]) == pytest.approx((finite[0], finite[-1]), abs=1e-4)
        assert list(found.values()) == sorted(found.values())


def test_percentiles_lie_between_the_scores():
    found = percentiles(np.array([0.65, 0.5, 0.9], np.float32))
    assert found == {"p0": 0.5, "p5": 0.515, "p25": 0.575, "p50": 0.65, "p75": 0.775, "p95": 0.875, "p100": 0.9}


@pytest.fixture
def hundred(mining_task):
    """Row n has one positive at 0.9 and negatives at n / 200 and 0: the last row is the hardest. Row 50 has none."""
    texts = [f"text {number}" for number in range(102)]
    task = mining_task(texts, [f"question {n}?" for n in range(100)], [[n] for n in range(100)], answers=["yes"] * 100)
    negatives = [[] if n == 50 else [100, 101] for n in range(100)]
    scores = [score for n in range(100) if n != 50 for score in (n / 200, 0.0)]
    return task, found_of(task, negatives, scores, [0.9] * 100, sources=[1, 2] * 99)


def test_examples_are_spread_over_the_scores(hundred):
    found = examples(*hundred)
    assert [item["picked"] for item in found] == ["hardest"] * 4 + ["median"] * 3 + ["random"] * 3
    rows = [int(item["question_id"][1:]) for item in found]
    assert rows[:4] == [99, 98, 97, 96] and rows[4:7] == [51, 49, 48] and len(set(rows)) == 10
    assert examples(*hundred) == found and examples(*hundred, seed=7)[:7] == found[:7]
    assert examples(*hundred, seed=7)[7:] != found[7:]
    assert found[0] == {
        "picked": "hardest",
        "question_id": "q99",
        "question": "question 99?",
        "answer": "yes",
        "positives": [{"id": "d99", "title": "", "text": "text 99", "score": 0.9}],
        "negatives": [
            {"id": "d100", "title": "", "text": "text 100", "score": 0.495, "source": "bm25"},
            {"id": "d101", "title": "", "text": "text 101", "score": 0.0, "source": "random"},
        ],
    }


@given(st.integers(1, 8), st.integers(0, 12), st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=40)
def test_as_many_examples_as_there_are_and_none_twice(mining_task, rows, count, random):
    negatives = [[1] * random.randint(0, 2) for _ in range(rows)]
    scores = [random.uniform(-1, 1) for item in negatives for _ in item]
    task = mining_task(["p", "n"], ["?"] * rows, [[0]] * rows)
    found = examples(task, found_of(task, negatives, scores, [0.5] * rows), count=count)
    picked = [item["question_id"] for item in found]
    assert len(picked) == len(set(picked)) == min(count, sum(map(bool, negatives)))
    assert all(item["negatives"] for item in found)


def test_the_page_shows_texts_as_they_are_and_cuts_long_ones(mining_task):
    task = mining_task(["# no heading\n<b>*bold*</b>", "long " * 500], ["Why `x`?"], [[0]], titles=["T", ""])
    page = examples_page(examples(task, found_of(task, [[1]], [np.float32(0.25)], [np.nan])))
    assert "## 1. Why \\`x\\`?" in page and "Answer:" not in page
    assert "**positive no score** (`d0`) T\n\n> \\# no heading \\<b\\>\\*bold\\*\\</b\\>" in page
    assert "**negative 0.2500** from vectors (`d1`)\n\n> long long" in page
    assert page.rstrip().endswith("…") and len(page) < 1200


def test_the_picture_is_the_same_for_the_same_scores_and_needs_no_display(tmp_path, monkeypatch):
    monkeypatch.delenv("DISPLAY", raising=False)
    random = np.random.default_rng(0)
    positives, negatives = (random.normal(mean, 0.1, 300).astype(np.float32) for mean in (0.7, 0.4))
    first, again, other = (tmp_path / name for name in ("a.png", "b.png", "c.png"))
    assert similarity_histogram(first, positives, negatives, "train $5_x") == first
    similarity_histogram(again, positives, negatives, "train $5_x")
    similarity_histogram(other, negatives, positives, "train $5_x")
    assert first.read_bytes() == again.read_bytes() != other.read_bytes()
    assert b"Software" not in first.read_bytes() and b"tIME" not in first.read_bytes()
    pixels = imread(first)
    assert pixels.shape[:2] == (540, 960)
    np.testing.assert_array_equal(pixels[0, 0, :3], 1)  # an opaque white ground reads in a dark page too
    if pixels.shape[2] == 4:
        assert (pixels[..., 3] == 1).all()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "b.png", "c.png"]


@pytest.mark.parametrize("scores", [[], [0.5], [0.5, 0.5, np.nan], [np.inf]])
def test_few_or_no_scores_still_give_a_picture(tmp_path, scores):
    values = np.array(scores, np.float32)
    assert imread(similarity_histogram(tmp_path / "few.png", values, values[:0], "few")).shape[:2] == (540, 960)
