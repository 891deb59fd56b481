"""What is reused, what is dropped, and what the result file looks like."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from pipeline_eval.bm25 import Bm25System
from pipeline_eval.identity import Identity
from pipeline_eval.ledger import Ledger

from pipeline.assets import model_content
from pipeline.errors import PipelineError
from pipeline.records.beir import TestSet
from pipeline.records.results import FILE_NAME, EvalResults, Facts

KS = [1, 10]
BASE = Identity("some/model", "weights-1", "contract-1", "float32")
FACTS = Facts(ms_per_query=1.5, size_mb=90.9, texts=6, cut=1, max_length=256, note="untrained head")
TUNED = replace(BASE, model="/run/consolidated", content="weights-2")


@pytest.fixture
def sets(tiny):
    return [tiny, TestSet("people", tiny.corpus, {"q1": "another question"}, {"q1": {"d_0": 1}})]


def perfect(test_set):
    return {query: {passage: 1.0 for passage in passages} for query, passages in test_set.qrels.items()}


def measured(folder, sets, systems=(("base", BASE), ("finetuned", TUNED)), k_values=KS):
    ledger = Ledger(folder, sets, k_values)
    for name, identity in systems:
        for item in ledger.reuse(name, identity):
            ledger.record(name, item, identity, perfect(item), 0.1, FACTS)
    ledger.drop_the_rest()
    ledger.save()
    return ledger


def test_file_layout(tmp_path, sets):
    measured(tmp_path, sets)
    document = json.loads((tmp_path / FILE_NAME).read_text())
    assert set(document) == {"base", "finetuned", "test_sets", "comparisons", "_metadata"}
    assert document["base"]["NDCG"] == {"NDCG@1": 1.0, "NDCG@10": 1.0}
    assert document["base"]["Precision"] == {"P@1": 1.0, "P@10": 0.1}
    assert set(document["test_sets"]) == {"people"}
    assert set(document["test_sets"]["people"]) == {"base", "finetuned"}
    known = document["_metadata"]["measurements"]["people"]["finetuned"]
    assert (known["model"], known["contract"], known["scores"]) == (
        "/run/consolidated",
        "contract-1",
        "people/finetuned.jsonl",
    )
    row = json.loads((tmp_path / "people/finetuned.jsonl").read_text())
    assert row["query_id"] == "q1" and row["top"] == [["d_0", 1.0]] and row["scores"]["NDCG@10"] == 1


def test_load_gives_back_what_was_saved(tmp_path, sets):
    ledger = measured(tmp_path, sets)
    again = EvalResults.load(tmp_path)
    assert again.measurements == ledger.results.measurements
    assert again.provenance == ledger.results.provenance
    assert again.provenance["people"]["base"].facts == FACTS
    assert again.value("people", "base", "Recall@1") == 1 and again.systems("people") == ["base", "finetuned"]


def test_nothing_changed_measures_nothing(tmp_path, sets, logged):
    measured(tmp_path, sets)
    ledger = Ledger(tmp_path, sets, KS)
    assert ledger.reuse("base", BASE) == []
    assert "base: reused for synthetic, people" in " ".join(logged)
    assert ledger.scores("people", "base")["q1"]["NDCG@10"] == 1


def test_what_changed_is_measured_again_and_nothing_else(tmp_path, sets):
    measured(tmp_path, sets)
    for changed in (replace(BASE, content="other"), replace(BASE, contract="other"), replace(BASE, dtype="bfloat16")):
        assert Ledger(tmp_path, sets, KS).reuse("base", changed) == sets
    renamed = replace(BASE, model="the same weights elsewhere")
    assert Ledger(tmp_path, sets, KS).reuse("base", renamed) == []
    assert Ledger(tmp_path, sets, [1, 5]).reuse("base", BASE) == sets
    other = TestSet("people", sets[0].corpus, {"q1": "put in other words"}, {"q1": {"d_0": 1}})
    assert Ledger(tmp_path, [sets[0], other], KS).reuse("base", BASE) == [other]


def test_scores_changed_by_hand_or_gone_are_measured_again(tmp_path, sets):
    measured(tmp_path, sets)
    (tmp_path / "people/base.jsonl").write_text("{}\n")
    (tmp_path / "synthetic/base.jsonl").unlink()
    assert Ledger(tmp_path, sets, KS).reuse("base", BASE) == sets


def test_a_partial_run_keeps_what_holds_and_drops_what_does_not(tmp_path, sets, logged):
    measured(tmp_path, sets)
    retrained = replace(TUNED, content="weights-3")
    measured(tmp_path, sets, systems=[("base", BASE), ("finetuned", retrained)])
    ledger = Ledger(tmp_path, sets, KS)
    ledger.reuse("finetuned", retrained)
    ledger.reuse("base", replace(BASE, contract="changed"))  # not asked for, and no longer true
    ledger.drop_the_rest()
    ledger.save()
    assert EvalResults.load(tmp_path).systems("synthetic") == ["finetuned"]
    assert not (tmp_path / "synthetic/base.jsonl").exists()
    assert sum("earlier numbers of base" in line for line in logged) == len(sets)


def test_a_test_set_not_asked_for_any_more_is_dropped(tmp_path, sets, logged):
    measured(tmp_path, sets)
    measured(tmp_path, sets[:1])
    assert json.loads((tmp_path / FILE_NAME).read_text())["test_sets"] == {}
    assert not (tmp_path / "people/base.jsonl").exists()
    assert any("on people are dropped" in line for line in logged)


def test_a_run_that_dies_half_way_loses_nothing(tmp_path, sets):
    measured(tmp_path, sets)
    ledger = Ledger(tmp_path, sets, [1, 5])
    ledger.record("base", sets[0], BASE, perfect(sets[0]), 0.1)  # and here the process is killed
    assert Ledger(tmp_path, sets, [1, 5]).reuse("base", BASE) == sets[1:]
    assert Ledger(tmp_path, sets, KS).reuse("finetuned", TUNED) == []


def test_a_foreign_result_file_is_refused(tmp_path, sets):
    (tmp_path / FILE_NAME).write_text('{"base": {}}')
    with pytest.raises(PipelineError, match="not a result file of this version"):
        Ledger(tmp_path, sets, KS)


def test_model_content_follows_the_weights_not_the_place(tmp_path):
    for name, weights in (("a", b"1"), ("b", b"1"), ("c", b"2")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_bytes(weights)
        (tmp_path / name / "README.md").write_text(name)
    a, b, c = (model_content(str(tmp_path / name), None) for name in "abc")
    assert a == b != c
    assert model_content("org/model", "abc123") == "org/model@abc123"


def test_bm25_finds_word_forms_and_gives_no_answer_without_a_common_word(tiny):
    with Bm25System().open(tiny.corpus) as index:
        ranking = index.search({"forms": "replacing the seals", "none": "xyzzy plugh"}, 100)
    assert next(iter(ranking["forms"])) == "d_0"
    assert ranking["none"] == {}
    assert all(score > 0 for score in ranking["forms"].values())
