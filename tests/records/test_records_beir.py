from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipeline.errors import PipelineError
from pipeline.records.beir import TestSet, question_test_set, read_beir, write_beir
from pipeline.records.passages import Passage

CORPUS = {
    "d_1": Passage("d_1", "The pump stops at 4 bar. Press the green", "", ("pump.md",)),
    "d_2": Passage("d_2", "button to\nstart it  again. The valve opens.", "", ("pump.md", "copy.md")),
    "d_3": Passage("d_3", "The pump stops at 4 bar in every model.", "Overview", ("overview.md",)),
}


def small_set() -> TestSet:
    return TestSet("eval", CORPUS, {"q_1": "When does it stop?"}, {"q_1": {"d_1": 1, "d_3": 2}}, {"q_1": {"hops": 1}})


def test_a_folder_comes_back_with_documents_and_metadata(tmp_path):
    write_beir(tmp_path / "eval", small_set())
    back = read_beir(tmp_path / "eval")
    assert back == small_set()
    assert back.corpus["d_2"].documents == ("pump.md", "copy.md")
    assert (tmp_path / "eval/qrels/test.tsv").read_text().splitlines()[0] == "query-id\tcorpus-id\tscore"


def test_the_beir_library_reads_it_too(tmp_path):
    from beir.datasets.data_loader import GenericDataLoader

    corpus, queries, qrels = GenericDataLoader(str(write_beir(tmp_path, small_set()))).load(split="test")
    assert corpus["d_3"]["title"] == "Overview" and queries == {"q_1": "When does it stop?"}
    assert qrels == {"q_1": {"d_1": 1, "d_3": 2}}


def test_unjudged_questions_and_judgements_of_zero_do_not_count(tmp_path):
    write_beir(tmp_path, small_set())
    with (tmp_path / "queries.jsonl").open("a") as stream:
        stream.write(json.dumps({"_id": "q_2", "text": "Nobody judged this"}) + "\n")
    with (tmp_path / "qrels/test.tsv").open("a") as stream:
        stream.write("q_2\td_1\t0\n")
    assert read_beir(tmp_path).queries == {"q_1": "When does it stop?"}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("q_9\td_1\t1", r"test.tsv:4: question 'q_9' is not in queries.jsonl"),
        ("q_1\td_9\t1", r"test.tsv:4: passage 'd_9' is not in corpus.jsonl"),
        ("q_1 d_1 1", r"test.tsv:4: 'q_1 d_1 1' is not query-id<TAB>"),
        ("q_1\td_1\tyes", r"test.tsv:4: .* is not query-id<TAB>"),
        ("q_1\td_1\t--5", r"test.tsv:4: .* is not query-id<TAB>"),
        ("q_1\td_1\t²", r"test.tsv:4: .* is not query-id<TAB>"),
    ],
)
def test_a_bad_judgement_is_named_with_its_line(tmp_path, line, message):
    write_beir(tmp_path, small_set())
    with (tmp_path / "qrels/test.tsv").open("a") as stream:
        stream.write(line + "\n")
    with pytest.raises(PipelineError, match=message):
        read_beir(tmp_path)


def test_a_missing_file_and_a_bad_line_are_named(tmp_path):
    with pytest.raises(PipelineError, match=r"corpus.jsonl does not exist"):
        read_beir(tmp_path)
    write_beir(tmp_path, small_set())
    (tmp_path / "corpus.jsonl").write_text('{"_id": "d_1", "text": "t"}\n{"_id": "d_2"}\n')
    with pytest.raises(PipelineError, match=r"corpus.jsonl:2 \(d_2\): text and title must be text"):
        read_beir(tmp_path)


@pytest.mark.parametrize(
    ("metadata", "documents"),
    [("null", ()), ('{"documents": null}', ()), ('{"documents": "pump.md"}', ("pump.md",)), ('{"documents": []}', ())],
)
def test_a_single_document_is_a_list_of_one(tmp_path, metadata, documents):
    write_beir(tmp_path, small_set())
    (tmp_path / "corpus.jsonl").write_text(
        f'{{"_id": "d_1", "text": "t", "metadata": {metadata}}}\n{{"_id": "d_3", "text": "t"}}\n'
    )
    assert read_beir(tmp_path).corpus["d_1"].documents == documents


@pytest.mark.parametrize(
    ("file", "metadata", "message"),
    [
        ("corpus", '{"documents": 5}', r"corpus.jsonl:1: metadata.documents must be text, found 5"),
        ("corpus", '{"documents": [" "]}', r"corpus.jsonl:1 has an empty metadata.documents"),
        ("corpus", "[1]", r"corpus.jsonl:1: metadata must be an object, found a list"),
        ("queries", '{"score": NaN}', r"queries.jsonl:1: metadata holds a value that no file of strict JSON can"),
        ("queries", '{"name": "\\ud800"}', r"queries.jsonl:1: metadata holds a value that no file of strict JSON can"),
    ],
)
def test_bad_metadata_are_named(tmp_path, file, metadata, message):
    write_beir(tmp_path, small_set())
    (tmp_path / f"{file}.jsonl").write_text(f'{{"_id": "d_1", "text": "t", "metadata": {metadata}}}\n')
    with pytest.raises(PipelineError, match=message):
        read_beir(tmp_path)


def test_a_line_separator_in_an_id_ends_no_line(tmp_path):
    corpus = {"d\u2028x": Passage("d\u2028x", "t")}
    write_beir(tmp_path, TestSet("eval", corpus, {"q": "?"}, {"q": {"d\u2028x": 1}}))
    assert read_beir(tmp_path).qrels == {"q": {"d\u2028x": 1}}


def test_a_home_folder_is_found(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    write_beir(tmp_path / "eval", small_set())
    assert read_beir(Path("~/eval")) == small_set()


def asked(tmp_path, **question):
    row = {"_id": "h1", "text": "When does it stop?", "doc": "pump.md", "quote": "The pump stops at 4 bar"} | question
    (tmp_path / "questions.jsonl").write_text("\n" + json.dumps(row) + "\n")
    return question_test_set(tmp_path / "questions.jsonl", CORPUS, "demo_test")


def test_a_quote_counts_in_its_own_document_alone(tmp_path):
    found = asked(tmp_path)
    assert (found.name, found.qrels) == ("demo_test", {"h1": {"d_1": 1}})
    assert found.metadata["h1"]["document"] == "pump.md"


def test_spacing_and_line_breaks_in_quote_and_passage_do_not_matter(tmp_path):
    assert asked(tmp_path, quote="button to start\nit again.").qrels == {"h1": {"d_2": 1}}


def test_a_passage_of_several_documents_counts_for_each(tmp_path):
    assert asked(tmp_path, doc="copy.md", quote="The valve opens.").qrels == {"h1": {"d_2": 1}}


@pytest.mark.parametrize(
    ("quote", "passage"),
    [("stops at 4 bar. Press the green button", "d_1"), ("the green button to start it again.", "d_2")],
)
def test_a_quote_cut_by_a_passage_border_goes_to_the_longer_part(tmp_path, quote, passage):
    assert asked(tmp_path, quote=quote).qrels == {"h1": {passage: 1}}


@pytest.mark.parametrize(
    ("question", "message"),
    [
        ({"doc": "other.md"}, r"questions.jsonl:2: no passage comes from document 'other.md'"),
        ({"quote": "nothing like it"}, r"questions.jsonl:2: no passage of pump.md contains the quote"),
    ],
)
def test_a_question_without_a_passage_is_named_with_its_line(tmp_path, question, message):
    with pytest.raises(PipelineError, match=message):
        asked(tmp_path, **question)
