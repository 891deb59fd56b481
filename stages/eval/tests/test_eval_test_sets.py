"""Which question sets are measured, and what is said of the others."""

from __future__ import annotations

import json
import shutil

import pytest
from pipeline_eval.identity import digest_of
from pipeline_eval.test_sets import FURTHER, GUARD, HUMAN, MAIN, kind_of, load_test_sets

from pipeline.errors import PipelineError
from pipeline.records.beir import TestSet, write_beir
from pipeline.schemas.eval import EmbedEvalConfig, RerankEvalConfig


def load(run_dir, corpus_dir="documents", own_corpus="documents", sets=("people",), **keys):
    return load_test_sets(
        EmbedEvalConfig(
            eval_data_path=str(run_dir / "stage1_data_prep" / "eval_beir"),
            question_sets={name: str(run_dir / f"{name}.jsonl") for name in sets},
            corpus_dir=str(run_dir / corpus_dir),
            question_sets_corpus=str(run_dir / own_corpus) if own_corpus else None,
            **keys,
        )
    )


def add_question(run_dir, **question):
    with (run_dir / "people.jsonl").open("a") as stream:
        stream.write(json.dumps({"_id": "extra", "text": "?"} | question) + "\n")


def test_a_quote_makes_its_passage_relevant(run_dir, tiny):
    main, people = load(run_dir)
    assert (main.name, people.name) == ("synthetic", "people")
    assert people.qrels == tiny.qrels
    assert people.corpus is main.corpus  # so that it is encoded once


def test_another_corpus_skips_all_sets_with_one_line(run_dir, logged):
    shutil.copytree(run_dir / "documents", run_dir / "copy")
    (main,) = load(run_dir, corpus_dir="copy")
    assert main.name == "synthetic"
    lines = [line for line in logged if "skipped" in line]
    assert len(lines) == 1 and "people" in lines[0] and str(run_dir / "copy") in lines[0]


def test_the_same_folder_by_another_name_is_the_same(run_dir):
    (run_dir / "link").symlink_to(run_dir / "documents")
    assert len(load(run_dir, corpus_dir="link/../documents")) == 2
    assert len(load(run_dir, corpus_dir="link")) == 2


def test_passages_of_other_documents_skip_the_set_whatever_corpus_dir_says(run_dir, tiny, logged):
    """`eval run_dir=X` without corpus_dir: the configuration names the demo's folder, the passages are others."""
    renamed = {
        key: type(item)(item.id, item.text, item.title, (f"other/{item.documents[0]}",))
        for key, item in tiny.corpus.items()
    }
    write_beir(run_dir / "stage1_data_prep" / "eval_beir", TestSet("synthetic", renamed, tiny.queries, tiny.qrels))
    assert len(load(run_dir)) == 1
    assert any("none of its documents" in line for line in logged)


def test_a_run_over_a_part_of_the_documents_skips_the_set_and_says_why(run_dir, logged):
    add_question(run_dir, doc="unread.md", quote="x")
    assert len(load(run_dir)) == 1
    assert any("1 of its 7 questions" in line and "unread.md" in line for line in logged)


def test_a_missing_quote_in_the_sets_own_corpus_is_an_error(run_dir):
    add_question(run_dir, doc="pump.md", quote="this is written nowhere")
    with pytest.raises(PipelineError, match=r"people.jsonl:7: no passage of pump.md contains the quote"):
        load(run_dir)


def test_own_questions_without_a_named_corpus_must_fit(run_dir):
    assert len(load(run_dir, own_corpus=None)) == 2
    add_question(run_dir, doc="unread.md", quote="x")
    with pytest.raises(PipelineError, match=r"no passage comes from document 'unread\.md'"):
        load(run_dir, own_corpus=None)


def test_further_sets_bring_their_own_corpus(run_dir, tiny):
    """Also over a corpus whose question sets are skipped."""
    one = {"d_2": tiny.corpus["d_2"]}
    other = TestSet("other", one, {"x": "cistern alarm"}, {"x": {"d_2": 1}})
    folder = str(write_beir(run_dir / "other", other))
    sets = load(run_dir, sets=(), test_sets={"more": folder}, guard_sets={"kept": folder})
    assert [item.name for item in sets] == ["synthetic", "more", "kept"]
    assert sets[1].corpus == sets[2].corpus == one
    config = EmbedEvalConfig(question_sets={"people": "x"}, test_sets={"more": "x"}, guard_sets={"kept": "x"})
    kinds = [kind_of(config, name) for name in ("synthetic", "people", "more", "kept")]
    assert kinds == [MAIN, HUMAN, FURTHER, GUARD]


def test_two_sets_of_one_name_and_names_of_own_folders_are_refused():
    config = EmbedEvalConfig(test_sets={"synthetic": "x", "cache_embeddings": "y"}, guard_sets={"a b": "z"})
    assert [key for key, _ in config.problems()] == ["test_sets", "test_sets", "guard_sets"]


@pytest.mark.parametrize("schema", [EmbedEvalConfig, RerankEvalConfig])
def test_names_of_services_are_checked_too_and_hybrid_candidates_need_the_hybrid(schema):
    assert schema(nim_urls={"gpu-7": "http://a"}, candidates="hybrid").problems() == []
    config = schema(nim_urls={"a b": "http://a", "../x": "http://b"}, candidates="hybrid", eval_bm25=False)
    assert [key for key, _ in config.problems()] == ["nim_urls", "nim_urls", "candidates"]
    assert [key for key, _ in schema(candidates="hybrid", eval_hybrid=False).problems()] == ["candidates"]


def test_few_questions_are_warned_of(run_dir, logged):
    load(run_dir)
    assert any("synthetic has fewer than 50 questions" in line for line in logged)


def test_a_test_set_without_questions_is_an_error(run_dir, tiny):
    write_beir(run_dir / "stage1_data_prep" / "eval_beir", TestSet("synthetic", tiny.corpus, {}, {}))
    with pytest.raises(PipelineError, match="holds no judged question"):
        load(run_dir)


def test_the_digest_follows_the_content(run_dir, tiny):
    before = digest_of(load(run_dir)[0])
    assert before == digest_of(tiny)
    changed = TestSet(tiny.name, tiny.corpus, tiny.queries, tiny.qrels | {"q1": {"d_2": 1}})
    assert digest_of(changed) != before
