"""Every format of the same content gives the same passages and questions, in any order of files and rows."""

from __future__ import annotations

import csv
import json
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pipeline_prep.funnel import Funnel
from pipeline_prep.inputs.read import read_input

from pipeline.errors import PipelineError
from pipeline.records.passages import Passage, passage_id, write_corpus

CONFIG = SimpleNamespace(quality_threshold=7.0, criterion_minimums={"accuracy": 6}, drop_unanswerable=True)


def read(path):
    funnel = Funnel()
    return read_input(path, CONFIG, funnel), funnel


def seen(converted):
    """All of it but the places, which name files."""
    questions = [(q.id, q.text, q.documents, q.positives, q.negatives, q.metadata) for q in converted.questions]
    passages = [(p.id, p.text, p.title, p.documents) for p in converted.passages.values()]
    return passages, questions, converted.ties, converted.given


def lost(funnel):
    return {reason: count for step in funnel.steps for reason, count in step.lost.items()}


def lines(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def document(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=1), encoding="utf-8")
    return path


def table(path, rows, delimiter):
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(rows[0]), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)
    return path


def parquet(path, rows):
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


# ---- records of sdg


def old_layout(corpus_records):
    """As in `generated_batch*.json`: no source_id; one name stands alone."""
    return [
        {**item, "text": "long", "document_artifacts": {"themes": []}, "is_multi_doc": False} for item in corpus_records
    ]


def new_layout(corpus_records):
    """As in JSON Lines of the plugin: more columns, chunks that name their document, a name instead of a list."""
    return [
        {
            **item,
            "file_name": item["file_name"][0],
            "source_id": item["file_name"][0],
            "bundle_id": "",
            "bundle_members": item["file_name"],
            "chunks": [{**chunk, "doc_id": item["file_name"][0], "word_count": 4} for chunk in item["chunks"]],
            "qa_evaluations": item["qa_evaluations"]["evaluations"],
        }
        for item in corpus_records
    ]


def two_batches(folder, records):
    document(folder / "generated_batch0_0_4.json", old_layout(records[:5]))
    document(folder / "generated_batch1_5_11.json", old_layout(records[5:]))
    (folder / "usage.json").write_text("{}")
    (folder / "report.json").write_text('{"not": "data"}')
    return folder


def hand_off(folder, records):
    lines(folder / "data" / "set.jsonl", new_layout(records))
    return document(folder / "generation_result.json", {"schema_version": 1, "output_path": "data/set.jsonl"})


def text_columns(folder, records):
    """Tables that hold nested values as JSON text."""
    return parquet(
        folder / "a.parquet",
        [
            {name: value if isinstance(value, str) else json.dumps(value) for name, value in item.items()}
            for item in records
        ],
    )


SDG_FORMS = {
    "batches": two_batches,
    "hand-off": hand_off,
    "folder of a hand-off": lambda folder, records: hand_off(folder, records).parent,
    "lines under .json": lambda folder, records: lines(folder / "nv_docs_sdg.json", new_layout(records)).parent,
    "lines under another name": lambda folder, records: lines(folder / "records.data", old_layout(records)),
    "list": lambda folder, records: document(folder / "a.jsonl", new_layout(records)),
    "parquet": lambda folder, records: parquet(folder / "a.bin", old_layout(records)),
    "parquet of text": text_columns,
    "folder of parquet": lambda folder, records: parquet(folder / "a.parquet", new_layout(records)).parent,
    "files in another order": lambda folder, records: two_batches(folder, records[::-1]),
}


@pytest.fixture(scope="module")
def expected(corpus_records, tmp_path_factory):
    return seen(read(lines(tmp_path_factory.mktemp("sdg") / "a.jsonl", corpus_records))[0])


@pytest.mark.parametrize("form", SDG_FORMS)
def test_every_form_of_sdg_records_gives_the_same(tmp_path, corpus_records, expected, form):
    path = tmp_path / "in"
    path.mkdir()
    converted, funnel = read(SDG_FORMS[form](path, corpus_records))
    assert seen(converted) == expected and len(converted.questions) == 36
    assert [step.name for step in funnel.steps] == ["read", "judged", "kept"]


def test_a_single_record_is_an_object(tmp_path, record):
    item = record("a.txt", ["t"], [("q", [1])])
    converted, _ = read(document(tmp_path / "a.json", item))
    assert [question.documents for question in converted.questions] == [("a.txt",)]


def test_configured_minimums_reach_the_judgements(tmp_path, record):
    item = record("a.txt", ["t"], [("q", [1]), ("r", [1])], [9, 6])
    item["qa_evaluations"]["evaluations"][0]["accuracy"] = {"score": 5}
    _, funnel = read(document(tmp_path / "a.json", [item]))
    assert lost(funnel) == {"below criterion_minimums": 1, "below quality_threshold": 1}


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_shuffled_records_and_chunks_shared_between_them_give_the_same(tmp_path, record, data):
    texts, names = st.sampled_from(["x", "y", "z", " "]), st.sampled_from(["a.txt", "b.txt", "c.txt"])
    records = [
        record(
            data.draw(st.lists(names, min_size=1, max_size=2, unique=True)),
            data.draw(st.lists(texts, min_size=1, max_size=3)),
            [(data.draw(st.sampled_from(["p?", "q?", ""])), data.draw(st.lists(st.integers(0, 3), max_size=2)))],
            data.draw(st.sampled_from([[9], [8], [1], [], [9, 9]])),
        )
        for _ in range(data.draw(st.integers(1, 5)))
    ]
    for item in records:
        item["chunks"][0]["title"] = data.draw(st.sampled_from(["", "T", "S"]))
    shuffled = data.draw(st.permutations(records))
    one, funnel = read(lines(tmp_path / "one.jsonl", records))
    two, other = read(lines(tmp_path / "two.jsonl", shuffled))
    assert seen(one) == seen(two) and lost(funnel) == lost(other)
    assert len(one.questions) + len(funnel.rejected) == len(records)


# ---- labelled pairs

PAIRS = [
    {
        "query": f"what is {n}?",
        "right": f"passage {n}",
        "wrong": [f"passage {n + 1}", f"passage {n + 2}"],
        "source": "s",
    }
    for n in range(4)
]


def inline(row):
    more = {"source": row["source"]}
    return {"question": row["query"], "pos_doc": [{"text": row["right"], "score": 2}], "neg_doc": row["wrong"], **more}


def columns(row):
    wrong = {f"negative_{n}": text for n, text in enumerate(row["wrong"], 1)}
    return {"anchor": row["query"], "positive": row["right"], **wrong, "source": row["source"]}


def cohere(row):
    more = {"source": row["source"]}
    return {"query": row["query"], "relevant_passages": [row["right"]], "hard_negatives": row["wrong"], **more}


def two_files(folder, rows):
    lines(folder / "b.jsonl", map(cohere, rows[:3]))
    return lines(folder / "a.jsonl", map(cohere, rows[3:])).parent


def corpus_ids(folder, rows):
    corpus = [Passage(f"p{n}", f"passage {n}") for n in range(6)]
    write_corpus(folder / "corpus", corpus, "c")
    ids = {passage.text: passage.id for passage in corpus}
    data = [
        {"question_id": f"q{n}", "question": row["query"], "corpus_id": "c", "pos_doc": [{"id": ids[row["right"]]}],
         "neg_doc": [ids[text] for text in row["wrong"]], "metadata": {"source": row["source"]}}
        for n, row in enumerate(rows)
    ]  # fmt: skip
    return document(folder / "train.json", {"corpus": {"path": "corpus"}, "data": data})


PAIR_FORMS = {
    "inline lines": lambda folder, rows: lines(folder / "a.jsonl", map(inline, rows)),
    "inline list": lambda folder, rows: document(folder / "a.json", [inline(row) for row in rows]),
    "inline data": lambda folder, rows: document(folder / "a.txt", {"data": [inline(row) for row in rows]}),
    "inline parquet": lambda folder, rows: parquet(folder / "a.parquet", [inline(row) for row in rows]),
    "columns": lambda folder, rows: lines(folder / "a.jsonl", map(columns, rows)),
    "csv": lambda folder, rows: table(folder / "a.csv", [columns(row) for row in rows], ","),
    "tsv": lambda folder, rows: table(folder / "a.tsv", [columns(row) for row in rows], "\t"),
    "parquet": lambda folder, rows: parquet(folder / "a.parquet", [columns(row) for row in rows]),
    "cohere": lambda folder, rows: lines(folder / "a.jsonl", map(cohere, rows)),
    "two files": two_files,
    "corpus ids": corpus_ids,
    "other order": lambda folder, rows: lines(folder / "a.jsonl", map(inline, rows[::-1])),
}


@pytest.mark.parametrize("form", PAIR_FORMS)
def test_every_form_of_labelled_pairs_gives_the_same(tmp_path, form):
    converted, funnel = read(PAIR_FORMS[form](tmp_path, PAIRS))
    ids = [passage_id(f"passage {n}") for n in range(6)]
    assert {key: passage.documents for key, passage in converted.passages.items()} == {key: (key,) for key in ids}
    assert [(q.text, q.documents, q.positives, q.negatives, q.metadata) for q in converted.questions] == [
        (f"what is {n}?", (ids[n],), (ids[n],), (ids[n + 1], ids[n + 2]), {"source": "s"}) for n in range(4)
    ]
    assert not converted.given and not converted.ties
    assert [(step.name, step.left, step.lost) for step in funnel.steps] == [("read", 4, {}), ("kept", 4, {})]


def test_pairs_without_negatives_and_with_an_answer_beside_the_passage(tmp_path):
    rows = [{"query": "q", "pos_doc": "p", "answer": "42"}, {"query": "r", "pos_doc": ["p", "o"], "answer": "43"}]
    converted, _ = read(lines(tmp_path / "a.jsonl", rows))
    assert [(q.metadata["answer"], q.negatives) for q in converted.questions] == [("42", ()), ("43", ())]
    assert converted.ties == [converted.questions[1].documents]
    rows = [{"question": "q", "context": "p", "answer": "42"}]
    (question,) = read(lines(tmp_path / "b.jsonl", rows))[0].questions
    assert question.positives == (passage_id("p"),) and question.metadata == {"answer": "42"}


def test_rows_of_one_question_are_one_question_with_all_its_passages(tmp_path):
    rows = [
        {"query": "q", "positive": "a", "negative": "b", "n": 1},
        {"query": "q ", "positive": "b", "negative": "c", "m": 2},
    ]
    converted, funnel = read(lines(tmp_path / "a.jsonl", rows))
    (question,) = converted.questions
    assert set(question.positives) == {passage_id("a"), passage_id("b")}
    assert question.negatives == (passage_id("c"),) and question.metadata == {"n": 1, "m": 2}
    assert converted.ties == [question.documents] and funnel.headline == "1 read → 1 kept"


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_shuffled_pairs_give_the_same(tmp_path, data):
    texts = st.sampled_from(["a", "b", "c", ""])
    rows = [
        {
            "query": data.draw(st.sampled_from(["q", "r", " "])),
            "positive": data.draw(texts),
            "negative": data.draw(texts),
            "title": data.draw(st.integers(0, 2)),
        }
        for _ in range(data.draw(st.integers(1, 6)))
    ]
    one, funnel = read(lines(tmp_path / "one.jsonl", rows))
    two, other = read(lines(tmp_path / "two.jsonl", data.draw(st.permutations(rows))))
    assert seen(one) == seen(two) and lost(funnel) == lost(other)
    assert len({question.text for question in one.questions}) == len(one.questions)


def test_siblings_of_an_unrolled_row_are_positives(tmp_path):
    path = corpus_ids(tmp_path, PAIRS[:1])
    content = json.loads(path.read_text())
    content["data"][0]["known_pos_ids"] = ["p0", "p2", "gone"]
    (question,) = read(document(path, content))[0].questions
    assert question.positives == (passage_id("passage 0"), passage_id("passage 2"))
    assert question.negatives == (passage_id("passage 1"),)


def test_rows_that_ask_or_answer_nothing_are_counted(tmp_path):
    rows = [{"query": " ", "positive": "a"}, {"query": "q", "positive": ""}, {"query": "r", "positive": "a"}]
    converted, funnel = read(table(tmp_path / "a.csv", rows, ","))
    assert [question.text for question in converted.questions] == ["r"]
    assert lost(funnel) == {"empty question": 1, "no positive": 1} and funnel.steps[0].left == 3
    assert [line["where"].rpartition(":")[2] for line in funnel.rejected] == ["2", "3"]


# ---- BEIR


def beir(folder, qrels, corpus=None, queries=None):
    corpus = corpus or [{"_id": f"p{n}", "title": "", "text": f"passage {n}"} for n in range(5)]
    lines(folder / "corpus.jsonl", corpus)
    lines(folder / "queries.jsonl", queries or [{"_id": f"q{n}", "text": f"what is {n}?"} for n in range(5)])
    (folder / "qrels").mkdir(exist_ok=True)
    for name, judged in qrels.items():
        rows = "".join(f"{query}\t{passage}\t{score}\n" for query, passage, score in judged)
        (folder / "qrels" / f"{name}.tsv").write_text("query-id\tcorpus-id\tscore\n" + rows)
    return folder


QRELS = {
    "train": [("q0", "p0", 1), ("q0", "p1", 2), ("q0", "p2", 0), ("q1", "p2", -1)],
    "validation": [("q2", "p2", 1)],
    "test": [("q3", "p3", 1)],
}


def test_a_beir_folder_says_the_split_of_its_questions(tmp_path):
    queries = [{"_id": f"q{n}", "text": f"what is {n}?", "metadata": {"n": n}} for n in range(5)]
    converted, funnel = read(beir(tmp_path, QRELS, queries=queries))
    ids = [passage_id(f"passage {n}") for n in range(5)]
    assert set(converted.passages) == set(ids)
    split = {question.text: converted.given[question.id] for question in converted.questions}
    assert split == {"what is 0?": "train", "what is 2?": "val", "what is 3?": "test"}
    first = converted.questions[0]
    assert (first.positives, first.negatives, first.metadata) == ((ids[1], ids[0]), (ids[2],), {"n": 0})
    assert first.documents == tuple(sorted(ids[:2])) and converted.ties == [first.documents]
    assert lost(funnel) == {"no positive": 1} and funnel.headline == "4 read → 3 kept"


def test_documents_of_beir_passages_come_from_their_metadata(tmp_path):
    corpus = [
        {"_id": "1", "text": "one", "metadata": {"documents": ["b.txt", "a.txt"]}},
        {"_id": "2", "text": "", "title": "only a title", "metadata": {}},
        {"_id": "3", "text": " "},
    ]
    converted, funnel = read(beir(tmp_path, {"test": [("q0", 1, 1), ("q1", 2, 1), ("q2", 3, 1)]}, corpus))
    title = passage_id("only a title")
    assert [question.documents for question in converted.questions] == [("a.txt", "b.txt"), (title,)]
    assert list(converted.passages) == sorted([passage_id("one"), title]) and lost(funnel) == {"no positive": 1}


def test_a_question_in_two_splits_stays_in_the_test_set(tmp_path):
    converted, funnel = read(beir(tmp_path, {"train": [("q0", "p0", 1)], "test": [("q0", "p0", 1)]}))
    assert list(converted.given.values()) == ["test"] and len(converted.questions) == 1
    assert lost(funnel) == {"asked in two splits": 1}


def test_the_judgements_of_one_split_can_be_named(tmp_path):
    folder = beir(tmp_path, {**QRELS, "mine": [("q4", "p4", 1)]})
    converted, _ = read(folder / "qrels" / "mine.tsv")
    assert [question.text for question in converted.questions] == ["what is 4?"] and not converted.given
    converted, _ = read(folder / "qrels" / "test.tsv")
    assert list(converted.given.values()) == ["test"]


@pytest.mark.parametrize(
    ("qrels", "told"),
    [
        ({"mine": [("q0", "p0", 1)]}, "holds mine.tsv, but no train.tsv, dev.tsv or test.tsv"),
        ({"dev": [("q0", "p0", 1)], "val": [("q0", "p0", 1)]}, "holds dev.tsv and val.tsv, which are all val"),
        ({"test": [("q0", "p9", 1)]}, "test.tsv:2: passage 'p9' is not in corpus.jsonl"),
        ({"test": [("q9", "p0", 1)]}, "test.tsv:2: question 'q9' is not in queries.jsonl"),
        ({"test": [("q0", "p0", "nan")]}, "test.tsv:2: "),
    ],
)
def test_wrong_judgements_are_named(tmp_path, qrels, told):
    with pytest.raises(PipelineError) as caught:
        read(beir(tmp_path, qrels))
    assert told in caught.value.message and str(tmp_path) in caught.value.message


# ---- folders


def test_a_folder_of_mixed_formats_lists_them(tmp_path, record):
    item = record("a.txt", ["t"], [("q", [1])])
    lines(tmp_path / "pairs.jsonl", map(inline, PAIRS))
    lines(tmp_path / "records.jsonl", [item])
    with pytest.raises(PipelineError, match="mixed formats") as caught:
        read(tmp_path)
    assert "pairs.jsonl holds labelled pairs (jsonl)" in caught.value.message
    assert "records.jsonl holds records of sdg (json)" in caught.value.message
    (tmp_path / "pairs.jsonl").unlink()
    parquet(tmp_path / "records.parquet", [item])
    with pytest.raises(PipelineError, match=r"records\.parquet holds records of sdg"):
        read(tmp_path)


def test_batches_beside_other_data_are_mixed_formats(tmp_path, record):
    item = record("a.txt", ["t"], [("q", [1])])
    document(tmp_path / "generated_batch0_0_0.json", [item])
    lines(tmp_path / "sample.jsonl", [item])
    with pytest.raises(PipelineError, match=r"generated_batch0_0_0.json holds .*; sample.jsonl holds records of sdg"):
        read(tmp_path)


def test_files_of_one_layout_may_have_any_endings(tmp_path, record):
    lines(tmp_path / "a.JSONL", [record("a.txt", ["t"], [("q", [1])])])
    document(tmp_path / "b.json", [record("b.txt", ["u"], [("r", [1])])])
    converted, _ = read(tmp_path)
    assert sorted(question.text for question in converted.questions) == ["q", "r"]


def test_a_handoff_file_stands_for_its_folder(tmp_path, record):
    lines(tmp_path / "out" / "generated_batch0_0_0.json", [record("new.txt", ["t"], [("new", [1])])])
    lines(tmp_path / "run1.jsonl", [record("old.txt", ["t"], [("old", [1])])])
    lines(tmp_path / "pairs.jsonl", map(inline, PAIRS))
    told = {"schema_version": 1, "output_path": "out/generated_batch0_0_0.json"}
    document(tmp_path / "generation_result.json", told)
    converted, _ = read(tmp_path)
    assert [question.text for question in converted.questions] == ["new"]


@pytest.mark.parametrize("field", ["data", "corpus"])
def test_a_single_row_may_have_a_field_data_or_corpus(tmp_path, field):
    converted, _ = read(lines(tmp_path / "a.jsonl", [{"query": "q", "positive": "a", field: "x"}]))
    assert converted.questions[0].metadata == {field: "x"}


def test_a_single_document_of_a_beir_passage_is_a_list_of_one(tmp_path):
    corpus = [{"_id": "p0", "text": "one", "metadata": {"documents": "guide.md"}}]
    converted, _ = read(beir(tmp_path, {"test": [("q0", "p0", 1)]}, corpus))
    assert converted.questions[0].documents == ("guide.md",)
    lines(tmp_path / "corpus.jsonl", [{"_id": "p0", "text": "one", "metadata": {"documents": 5}}])
    with pytest.raises(PipelineError, match=r"corpus.jsonl:1: metadata.documents must be text, found 5"):
        read(tmp_path)


@pytest.mark.parametrize("content", ["{}", "[]", "", '[{"file_name": "a"'])
def test_a_broken_file_in_a_folder_is_not_left_out_in_silence(tmp_path, content):
    lines(tmp_path / "a.jsonl", map(inline, PAIRS))
    (tmp_path / "b.jsonl").write_text(content)
    with pytest.raises(PipelineError, match=r"broken files: b.jsonl: .*; a.jsonl holds labelled pairs"):
        read(tmp_path)


def test_an_empty_folder_and_a_missing_path_are_named(tmp_path):
    for path, told in ((tmp_path, "holds no records"), (tmp_path / "gone", "does not exist")):
        with pytest.raises(PipelineError, match=told) as caught:
            read(path)
        assert str(path) in caught.value.message
