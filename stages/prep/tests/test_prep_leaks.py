"""Traps: what reached training beside a given or frozen test set, each by a way of its own."""

from __future__ import annotations

import json
import logging
import random

import pytest
from pipeline_prep.funnel import Funnel
from pipeline_prep.inputs.read import read_input
from pipeline_prep.inputs.train_file import read_train_file
from pipeline_prep.split import split_questions

from pipeline.errors import PipelineError
from pipeline.records.passages import Passage, passage_id, write_corpus
from pipeline.schemas.prep import PrepConfig

NO_VAL = {"train_ratio": 0.9, "val_ratio": 0, "test_ratio": 0.1}


def prose(name, length=60):
    """Words drawn at random, the same for the same name."""
    draw = random.Random(str(name))
    return " ".join(f"w{draw.randrange(5000)}" for _ in range(length))


def edited(text, place=10):
    found = text.split()
    return " ".join([*found[:place], "changed", *found[place + 1 :]])


def records(path, documents):
    """Records of sdg: name -> (chunks, numbers of those that answer one question each)."""
    rows = []
    for name, (chunks, asked) in documents.items():
        pairs = [{"question": f"what is {prose((name, n), 8)}", "segment_ids": [n + 1]} for n in asked]
        numbered = [{"chunk_id": n, "text": text} for n, text in enumerate(chunks, 1)]
        rows.append({"file_name": [name], "chunks": numbered, "deduplicated_qa_pairs": pairs})
    path.write_text(json.dumps(rows))
    return path


def others(count=6):
    return {f"other{n}.md": ([prose(f"other {n}")], [0]) for n in range(count)}


def beir(folder, corpus, qrels):
    """id -> (text, documents or None), and split -> (question, id of a passage)."""
    (folder / "qrels").mkdir(parents=True)
    rows = [
        {"_id": key, "text": text, **({"metadata": {"documents": names}} if names else {})}
        for key, (text, names) in corpus.items()
    ]
    (folder / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    asked = sorted({question for judged in qrels.values() for question, _ in judged})
    queries = [{"_id": f"q{question}", "text": prose(("asked", question), 9)} for question in asked]
    (folder / "queries.jsonl").write_text("".join(json.dumps(row) + "\n" for row in queries))
    for side, judged in qrels.items():
        lines = "".join(f"q{question}\t{passage}\t1\n" for question, passage in judged)
        (folder / "qrels" / f"{side}.tsv").write_text("query-id\tcorpus-id\tscore\n" + lines)
    return folder


def split(path, **keys):
    config, funnel = PrepConfig(**keys), Funnel()
    converted = read_input(path, config, funnel)
    return split_questions(converted, config, funnel, logging.getLogger("pipeline.test")), funnel


def reasons(funnel):
    return funnel.steps[-1].lost


def documents(splits, *sides):
    return {name for side in sides for question in splits[side] for name in question.documents}


ANSWER, SHARED = prose("answer"), prose("shared")


def test_a_positive_that_stands_in_a_document_of_the_frozen_test_set(tmp_path):
    frozen = beir(tmp_path / "frozen", {"a": (ANSWER, ["T.md"]), "s": (SHARED, ["T.md"])}, {"test": [("t", "a")]})
    ours = {"A.md": ([SHARED, prose("own")], [0, 1]), **others()}
    path = records(tmp_path / "r.json", {"T.md": ([ANSWER, SHARED], [0]), **ours})
    splits, funnel = split(path, frozen_eval=str(frozen), **NO_VAL)
    assert reasons(funnel) == {"document of a test question": 1, "answered in a test document": 1}
    assert [q.positives for q in splits["train"] if q.documents == ("A.md",)] == [(passage_id(prose("own")),)]
    assert splits.hidden == {passage_id(ANSWER)} and splits.apart == {passage_id(ANSWER), passage_id(SHARED)}


def test_a_positive_that_nearly_repeats_a_passage_of_a_given_test_document(tmp_path):
    corpus = {"t": (ANSWER, ["T"]), "s": (SHARED, ["T"]), "near": (edited(SHARED), ["A"]), "a": (prose("own"), ["A"])}
    corpus |= {f"x{n}": (prose(n), [f"X{n}"]) for n in range(6)}
    qrels = {"test": [("t", "t")], "train": [("near", "near"), ("a", "a"), *((str(n), f"x{n}") for n in range(6))]}
    splits, funnel = split(beir(tmp_path / "beir", corpus, qrels))
    assert reasons(funnel) == {"answered in a test document": 1}
    assert len(splits["train"] + splits["val"]) == 7
    assert passage_id(edited(SHARED)) in splits.apart - splits.hidden


@pytest.mark.parametrize("answer", [ANSWER, "It stops at five bar."])
@pytest.mark.parametrize("threshold", [0.8, None])
def test_the_document_of_an_answer_that_names_none(tmp_path, answer, threshold):
    frozen = beir(tmp_path / "frozen", {"a": (answer, None)}, {"test": [("t", "a")]})
    path = records(tmp_path / "r.json", {"T.md": ([answer, prose("more")], [1]), **others()})
    splits, funnel = split(path, frozen_eval=str(frozen), near_duplicate_threshold=threshold, **NO_VAL)
    assert reasons(funnel) == {"document of a test question": 1}
    assert "T.md" not in documents(splits, "train") and passage_id(prose("more")) in splits.apart


def test_the_document_of_an_answer_that_names_none_and_differs_by_a_word(tmp_path):
    frozen = beir(tmp_path / "frozen", {"a": (edited(ANSWER), None)}, {"test": [("t", "a")]})
    path = records(tmp_path / "r.json", {"T.md": ([ANSWER, prose("more", 300)], [1]), **others()})
    _, funnel = split(path, frozen_eval=str(frozen), **NO_VAL)
    assert reasons(funnel) == {"document of a test question": 1}


def test_a_longer_passage_that_holds_the_whole_answer(tmp_path):
    frozen = beir(tmp_path / "frozen", {"a": (ANSWER, ["T.md"]), "b": (SHARED, ["T.md"])}, {"test": [("t", "a")]})
    path = records(tmp_path / "r.json", {"big.md": ([f"{ANSWER} {prose('rest', 200)}"], [0]), **others()})
    splits, funnel = split(path, frozen_eval=str(frozen), **NO_VAL)
    assert reasons(funnel) == {"answered by a test passage": 1}
    assert splits.hidden == {passage_id(f"{ANSWER} {prose('rest', 200)}")}


def test_test_documents_that_were_cut_into_other_passages(tmp_path):
    found = prose("long", 120).split()
    chunks = [" ".join(found[:60]), " ".join(found[60:])]
    frozen = beir(tmp_path / "frozen", {"a": (chunks[0], ["T.md"]), "b": (chunks[1], ["T.md"])}, {"test": [("t", "a")]})
    across = " ".join(found[30:90])
    path = records(tmp_path / "r.json", {"A.md": ([across, prose("own", 200)], [0]), **others()})
    splits, funnel = split(path, frozen_eval=str(frozen), **NO_VAL)
    assert reasons(funnel) == {"answered in a test document": 1} and passage_id(across) in splits.apart


def test_short_phrases_that_lie_in_a_test_document_take_nothing(tmp_path):
    phrase = " ".join(ANSWER.split()[:19])
    frozen = beir(tmp_path / "frozen", {"a": (ANSWER, ["T.md"])}, {"test": [("t", "a")]})
    path = records(tmp_path / "r.json", {"A.md": ([phrase], [0]), **others()})
    splits, _ = split(path, frozen_eval=str(frozen), **NO_VAL)
    assert "A.md" in documents(splits, "train")


def train_file(tmp_path, rows, passages):
    write_corpus(tmp_path / "corpus", [Passage(passage_id(text), text) for text in passages], "c")
    for number, (positives, extra) in enumerate(rows):
        extra.setdefault("question_id", f"r{number}")
        extra.setdefault("question", f"how does {prose(('row', number), 8)}")
        extra |= {"corpus_id": "c", "neg_doc": [], "pos_doc": [{"id": passage_id(text)} for text in positives]}
    path = tmp_path / "train.json"
    path.write_text(json.dumps({"corpus": {"path": "./corpus"}, "data": [extra for _, extra in rows]}))
    return path


def test_rows_of_a_training_file_on_a_frozen_document(tmp_path):
    frozen = beir(tmp_path / "frozen", {"a": (ANSWER, ["T.md"]), "s": (SHARED, ["T.md"])}, {"test": [("t", "a")]})
    mine = [prose(f"mine {n}") for n in range(4)]
    rows = [
        ([mine[0]], {"metadata": {"file_name": ["T.md"]}}),
        ([mine[1]], {"metadata": {"file_name": "T.md"}}),
        ([SHARED], {}),
        ([mine[2]], {"known_pos_ids": [passage_id(edited(SHARED))]}),
        ([mine[3]], {"metadata": {"file_name": "fine.md"}}),
    ]
    path = train_file(tmp_path, rows, [ANSWER, SHARED, edited(SHARED), *mine])
    funnel = Funnel()
    _, splits, kept = read_train_file(PrepConfig(train_input_file=str(path), frozen_eval=str(frozen)), funnel)
    assert [row.question_id for row in kept] == ["r4"]
    assert reasons(funnel) == {"document of a test question": 2, "answered in a test document": 2}
    assert splits.hidden == {passage_id(ANSWER)} and splits.apart >= {passage_id(SHARED), passage_id(edited(SHARED))}


def test_rows_of_a_training_file_on_the_document_of_an_answer_that_names_none(tmp_path):
    frozen = beir(tmp_path / "frozen", {"a": (ANSWER, None)}, {"test": [("t", "a")]})
    named = {"metadata": {"file_name": "T.md"}}
    path = train_file(tmp_path, [([ANSWER], dict(named)), ([SHARED], dict(named)), ([prose(1)], {})],
                      [ANSWER, SHARED, prose(1)])  # fmt: skip
    funnel = Funnel()
    _, _, kept = read_train_file(PrepConfig(train_input_file=str(path), frozen_eval=str(frozen)), funnel)
    assert [row.question_id for row in kept] == ["r2"] and reasons(funnel) == {"document of a test question": 2}


def test_siblings_know_each_others_positives(tmp_path):
    texts = [prose(n) for n in range(6)]
    ids = [passage_id(text) for text in texts]
    rows = [
        ([texts[0], texts[0]], {"original_question_id": "o"}),
        ([texts[1]], {"original_question_id": "o", "known_pos_ids": [ids[1], ids[2]]}),
        ([texts[3]], {"question": "Who asks twice?"}),
        ([texts[4]], {"question": "who asks  twice"}),
        ([texts[5]], {}),
    ]
    _, _, kept = read_train_file(PrepConfig(train_input_file=str(train_file(tmp_path, rows, texts))), Funnel())
    known = [set(row.extra["known_pos_ids"]) for row in kept]
    assert known[0] == known[1] == {ids[0], ids[1], ids[2]}
    assert known[2] == known[3] == {ids[3], ids[4]} and known[4] == {ids[5]}
    assert kept[0].positives == [ids[0]]
    assert all(len(row.extra["known_pos_ids"]) == len(set(row.extra["known_pos_ids"])) for row in kept)


def given_val(tmp_path):
    corpus = {f"{d}-{c}": (prose((d, c)), [f"D{d}"]) for d in range(10) for c in range(3)}
    qrels = {
        "train": [(f"t{d}", f"{d}-0") for d in range(10)],
        "dev": [(f"v{d}", f"{d}-1") for d in range(10)],
    }
    return beir(tmp_path / "beir", corpus, qrels)


@pytest.mark.parametrize("seed", range(3))
def test_a_given_val_loses_the_documents_of_the_test_set_that_is_cut(tmp_path, seed):
    splits, funnel = split(given_val(tmp_path), seed=seed)
    assert splits["test"] and splits["train"] and splits["val"]
    assert not documents(splits, "test") & documents(splits, "train", "val")
    assert reasons(funnel) == {"document of a test question": len(documents(splits, "test"))}
    inside = {passage_id(prose((d, c))) for d in range(10) for c in range(3)}
    assert splits.apart == inside, "every document is one of val or test"


def test_train_loses_the_questions_answered_as_those_of_a_given_val(tmp_path):
    corpus = {f"x{n}": (prose(n), None) for n in range(8)}
    qrels = {"train": [(f"t{n}", f"x{n}") for n in range(8)], "dev": [("v", "x3")]}
    splits, funnel = split(beir(tmp_path / "beir", corpus, qrels), train_ratio=0.9, val_ratio=0.1, test_ratio=0)
    assert [question.positives for question in splits["val"]] == [(passage_id(prose(3)),)]
    assert len(splits["train"]) == 7 and reasons(funnel) == {"answered as a val question": 1}


def test_questions_of_many_positives_stay_beside_a_given_val(tmp_path):
    corpus = {f"x{n}": (prose(n), None) for n in range(8)}
    train = [(f"t{n}", f"x{(n + step) % 8}") for n in range(8) for step in range(3)]
    qrels = {"train": [*train, ("part", "x0"), ("part", "x1")], "dev": [("v", f"x{n}") for n in range(3)]}
    splits, funnel = split(beir(tmp_path / "beir", corpus, qrels), train_ratio=0.9, val_ratio=0.1, test_ratio=0)
    assert len(splits["train"]) == 7 and reasons(funnel) == {"answered as a val question": 2}


def test_a_given_val_that_loses_everything_is_an_error_with_a_number(tmp_path):
    corpus = {"a": (ANSWER, ["T"]), "b": (SHARED, ["T"]), **{f"x{n}": (prose(n), [f"X{n}"]) for n in range(4)}}
    train = [(f"t{n}", f"x{n}") for n in range(4)]
    folder = beir(tmp_path / "beir", corpus, {"test": [("t", "a")], "dev": [("v", "b")], "train": train})
    with pytest.raises(PipelineError, match=r"the val split has no question left.* at least 1 more .*are needed"):
        split(folder)


def test_a_cluster_reaches_ours_by_way_of_the_frozen_document(tmp_path):
    frozen = beir(tmp_path / "frozen", {"a": (ANSWER, ["T.md"])}, {"test": [("t", "a")]})
    path = records(tmp_path / "r.json", {"A.md": ([prose("own")], [0]), **others()})
    groups = tmp_path / "groups.json"
    groups.write_text(json.dumps({"semantic": {"clusters": {"c": ["A.md", "T.md"], "d": ["other0.md", "other1.md"]}}}))
    keys = {"frozen_eval": str(frozen), "split_strategy": "cluster", "groups_json": [str(groups)], **NO_VAL}
    splits, funnel = split(path, **keys)
    assert reasons(funnel) == {"document of a test question": 1}
    assert documents(splits, "train") == {f"other{n}.md" for n in range(6)}


def test_passages_of_val_are_apart(tmp_path):
    own = {f"{n}.md": ([prose((n, 0)), prose((n, 1))], [0]) for n in range(10)}
    splits, _ = split(records(tmp_path / "r.json", own))
    expected = {passage_id(text) for name in documents(splits, "val", "test") for text in own[name][0]}
    assert splits.apart == expected and len(expected) == 4
