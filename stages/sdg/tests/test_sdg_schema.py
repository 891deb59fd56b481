"""Every record has the published form: from an endpoint of ours with everything on, and from the embedded LLM."""

import copy
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pipeline_sdg.endpoints import QA

from pipeline.home import workspace
from pipeline.records.sdg import read_records
from pipeline.schemas.sdg import QUERY_STYLES, QUERY_TYPES, REASONING_TYPES

TEXT, WHOLE, FLAG, ANY_TEXT = "a text that is not empty", "a whole number", "true or false", "a text"
KINDS = {
    TEXT: lambda value: isinstance(value, str) and value.strip() != "",
    ANY_TEXT: lambda value: isinstance(value, str),
    WHOLE: lambda value: type(value) is int and value > 0,
    FLAG: lambda value: type(value) is bool,
    "a word position": lambda value: type(value) is int and value >= 0,
    "1 to 10 or null": lambda value: value is None or (type(value) is int and 1 <= value <= 10),
    "1.0 to 10.0 or null": lambda value: value is None or (type(value) is float and 1 <= value <= 10),
    "1 to 5": lambda value: type(value) is int and 1 <= value <= 5,
    "an id of a passage": lambda value: isinstance(value, str) and len(value) == 18 and value.startswith("d_"),
    "true, false or null": lambda value: value is None or type(value) is bool,
}
ARTIFACT = {"text": TEXT, "description": ANY_TEXT, "importance": ANY_TEXT}
SCORED = {"score": "1 to 10 or null", "justification": ANY_TEXT}
PAIR = {
    "question": TEXT,
    "answer": TEXT,
    "question_complexity": "1 to 5",
    "query_type": QUERY_TYPES,
    "reasoning_type": REASONING_TYPES,
    "segment_ids": [WHOLE],
    "hop_count": WHOLE,
    "hop_contexts": [{"hop_number": WHOLE, "segment_ids": [WHOLE], "summary": ANY_TEXT}],
    "query_style?": QUERY_STYLES,
    "clean_question?": TEXT,
    "hops_needed?": [WHOLE],
    "extra_positives?": ["an id of a passage"],
}
CHUNK = {
    "text": TEXT,
    "title": ANY_TEXT,
    "start": "a word position",
    "end": WHOLE,
    "sentence_count": WHOLE,
    "word_count": WHOLE,
    "chunk_id": WHOLE,
    "doc_chunk_index": WHOLE,
    "id?": TEXT,
    "doc_id?": TEXT,
    "doc_path?": TEXT,
}
EVALUATION = {
    **dict.fromkeys(("relevance", "accuracy", "context_support", "clarity"), SCORED),
    "overall": {"score": "1.0 to 10.0 or null", "assessment": ANY_TEXT},
    "improvements": ANY_TEXT,
    "answerable?": "true, false or null",
    "answer_check?": {
        "answerable": FLAG, "supported": FLAG, "answer": ANY_TEXT, "evidence": [TEXT]
    },
}  # fmt: skip
ARTIFACT_TYPES = (
    "key_concepts", "relationships", "themes", "entities",
    "processes", "insights", "technical_terms", "contextual_factors",
)  # fmt: skip
RECORD = {
    "file_name": [TEXT],
    "source_id": TEXT,
    "text": TEXT,
    "chunks": [CHUNK],
    "sections_structured": [TEXT],
    "bundle_id": ANY_TEXT,
    "bundle_members": [TEXT],
    "is_multi_doc": FLAG,
    "document_artifacts": {name: [ARTIFACT] for name in ARTIFACT_TYPES},
    "qa_generation": {"pairs": [PAIR]},
    "deduplicated_qa_pairs": [PAIR],
    "qa_evaluations": {"evaluations": [EVALUATION]},
}
REJECTION = {
    "kind": ("rejected", "remark"),
    "document": TEXT,
    "window": "a word position",
    "role": TEXT,
    "reason": TEXT,
}


def faults_of(value: Any, form: Any, where: str = "record") -> Iterator[str]:
    """What in a value has not its form: a kind, a list of one form, a choice (tuple), or an object's fields (`?`: may
    be left out; others may not be there)."""
    if isinstance(form, str):
        if not KINDS[form](value):
            yield f"{where}: {value!r:.60} is not {form}"
    elif isinstance(form, tuple):
        if value not in form:
            yield f"{where}: {value!r:.60} is none of {form}"
    elif isinstance(form, list):
        if not isinstance(value, list):
            yield f"{where}: {value!r:.60} is no list"
            return
        for number, item in enumerate(value):
            yield from faults_of(item, form[0], f"{where}[{number}]")
    elif not isinstance(value, dict):
        yield f"{where}: {value!r:.60} is no object"
    else:
        needed = {name for name in form if not name.endswith("?")}
        forms = {name.removesuffix("?"): part for name, part in form.items()}
        yield from (f"{where}: {name} is missing" for name in sorted(needed - set(value)))
        yield from (f"{where}: {name} has no business here" for name in sorted(set(value) - set(forms)))
        for name in forms.keys() & value.keys():
            yield from faults_of(value[name], forms[name], f"{where}.{name}")


def contradictions(record: dict[str, Any]) -> Iterator[str]:
    """What the fields of a record of the right form say against each other."""
    chunks, pairs = record["chunks"], record["deduplicated_qa_pairs"]
    numbers = [chunk["chunk_id"] for chunk in chunks]
    if numbers != list(range(1, len(chunks) + 1)):
        yield f"chunk_id: {numbers}"
    for chunk in chunks:
        if chunk["end"] <= chunk["start"] or chunk["word_count"] != len(chunk["text"].split()):
            yield f"chunk {chunk['chunk_id']}: its words are not counted right"
        if not any(f"- Segment {chunk['chunk_id']}" in part for part in record["sections_structured"]):
            yield f"chunk {chunk['chunk_id']}: is in no section"
        if ("doc_id" in chunk) != record["is_multi_doc"] or ("doc_path" in chunk) != record["is_multi_doc"]:
            yield f"chunk {chunk['chunk_id']}: doc_id and doc_path are for bundles"
    if record["is_multi_doc"] != (len(record["file_name"]) > 1) or record["is_multi_doc"] != bool(record["bundle_id"]):
        yield "file_name, bundle_id and is_multi_doc do not agree"
    if record["bundle_members"] != (record["file_name"] if record["is_multi_doc"] else []):
        yield "bundle_members"
    if len(record["qa_evaluations"]["evaluations"]) != len(pairs):
        yield "not one evaluation for each pair"
    written = {clean(pair) for pair in record["qa_generation"]["pairs"]}
    for pair in [*record["qa_generation"]["pairs"], *pairs]:
        yield from (f"{pair['question']}: {fault}" for fault in _of_pair(pair, numbers, written))


def clean(pair: dict[str, Any]) -> str:
    """The question before it was mistyped."""
    return pair.get("clean_question", pair["question"])


def _of_pair(pair: dict[str, Any], numbers: list[int], written: set[str]) -> Iterator[str]:
    segments, hops = pair["segment_ids"], pair["hop_contexts"]
    if clean(pair) not in written:
        yield "was never written"
    if not segments or segments != sorted(set(segments)) or not set(segments) <= set(numbers):
        yield f"segment_ids {segments}"
    if (pair["query_type"] == "multi_hop") != bool(hops) or pair["hop_count"] != max(len(hops), 1):
        yield f"{len(hops)} hops of {pair['hop_count']} in a {pair['query_type']} pair"
    if [hop["hop_number"] for hop in hops] != list(range(1, len(hops) + 1)):
        yield "hop_number"
    if hops and sorted({number for hop in hops for number in hop["segment_ids"]}) != segments:
        yield "segment_ids are not the union of the hops'"


def checked(folder: Path) -> list[dict[str, Any]]:
    """The records of a folder, all of the published form; and every rejection says what, why and from which reply."""
    found = [record for _, record in read_records(folder)]
    assert found
    for record in found:
        assert [*faults_of(record, RECORD)] == []
        assert [*contradictions(record)] == []
        json.dumps(record, allow_nan=False)
    for line in (folder / "rejected.jsonl").read_text().splitlines():
        item = json.loads(line)
        assert [*faults_of({name: item[name] for name in REJECTION}, REJECTION)] == []
        assert set(item) == {*REJECTION, "item", "reply", "finish_reason"}
    return found


@pytest.fixture
def full(endpoint: Any) -> Any:
    """The endpoint: one pair of every window has two hops, of which one is needed, and every passage answers."""
    usual = endpoint.content

    def content(role: str, body: dict[str, Any]) -> str:
        value = json.loads(usual(role, body))
        if role == "qa_generation":
            ids = sorted({number for pair in value["pairs"] for number in pair["segment_ids"]})
            hops = [{"hop_number": at, "segment_ids": [number], "summary": "fact"} for at, number in enumerate(ids, 1)]
            if len(ids) > 1:
                typed = {"query_type": "multi_hop", "segment_ids": ids, "hop_count": len(ids), "hop_contexts": hops}
                value["pairs"][0] |= typed
                value["pairs"][1] |= {"query_type": "contextual", "hop_count": 1, "hop_contexts": []}
        return json.dumps(value)

    endpoint.content, endpoint.grade = content, 3
    return endpoint


EVERY_LABEL = ("check_answers=true", "pooled_judging=2", "query_counts={multi_hop: 1, contextual: 1}")


@pytest.mark.parametrize("hops_needed", [[], [2]])
@pytest.mark.parametrize("hop_check", ["keep", "relabel"])
def test_with_every_label(stage: Callable[..., Path], full: Any, hop_check: str, hops_needed: list[int]) -> None:
    full.hops_needed = hops_needed
    records = checked(stage(*EVERY_LABEL, f"hop_check={hop_check}"))
    pairs = [pair for record in records for pair in record["deduplicated_qa_pairs"]]
    assert any(pair.get("hops_needed") for pair in pairs) and any(pair["extra_positives"] for pair in pairs)
    assert all(item["answerable"] is True for record in records for item in record["qa_evaluations"]["evaluations"])


@pytest.mark.parametrize(
    "shape",
    [
        ("quality_judge=none", "artifacts=false", "embed_model=null"),
        ("num_sections=2", "sentences_per_chunk=1", "window_chunks=2"),
        ("chunking=none", "num_pairs=1"),
        ("multi_doc=true", "bundle_size=3", "bundle_strategy=interleaved", "num_sections=2"),
    ],
)
def test_of_every_shape(stage: Callable[..., Path], endpoint: Any, shape: tuple[str, ...]) -> None:
    usual = endpoint.content

    def content(role: str, body: dict[str, Any]) -> str:
        """The endpoint knows a segment's line without the name of its document."""
        plain = re.sub(r"(- Segment \d+) \[.*?\]:", r"\1:", body["messages"][0]["content"])
        return usual(role, {"messages": [{"role": "user", "content": plain}]})

    endpoint.content = content
    records = checked(stage(*shape))
    assert all(record["deduplicated_qa_pairs"] for record in records)
    assert [record["is_multi_doc"] for record in records] == ([True] if "multi_doc=true" in shape else [False] * 3)


def test_a_mistyped_question_keeps_its_clean_form(stage: Callable[..., Path], endpoint: Any) -> None:
    usual = endpoint.content

    def content(role: str, body: dict[str, Any]) -> str:
        value = json.loads(usual(role, body))
        for pair, style in zip(value.get("pairs", ()), ("typo", "question"), strict=False):
            pair["query_style"] = style
        return json.dumps(value)

    endpoint.content = content
    for record in checked(stage("query_styles={typo: 1, question: 1}")):
        typo, question = record["deduplicated_qa_pairs"]
        assert typo["clean_question"] != typo["question"] and "clean_question" not in question


DAMAGE: list[tuple[str, dict[str, Any], str]] = [
    ("chunks", {"start": "0"}, "start: '0' is not a word position"),
    ("chunks", {"word_count": 1}, "its words are not counted right"),
    ("deduplicated_qa_pairs", {"segment_ids": [True]}, "segment_ids[0]: True is not a whole number"),
    ("deduplicated_qa_pairs", {"query_type": "odd"}, "query_type: 'odd' is none of"),
    ("deduplicated_qa_pairs", {"segment_ids": [99]}, "segment_ids [99]"),
    ("deduplicated_qa_pairs", {"hop_count": 7}, "hops of 7 in a"),
    ("deduplicated_qa_pairs", {"question": "What?"}, "was never written"),
    ("", {"document_artifacts": {}}, "key_concepts is missing"),
    ("", {"mark": 1}, "mark has no business here"),
    ("", {"qa_evaluations": {"evaluations": []}}, "not one evaluation for each pair"),
    ("", {"bundle_id": "0f"}, "do not agree"),
]


def test_the_check_itself_finds_what_is_wrong(stage: Callable[..., Path], endpoint: Any) -> None:
    good = checked(stage())[0]
    for part, change, said in DAMAGE:
        record = copy.deepcopy(good)
        (record[part][0] if part else record).update(change)
        found = "; ".join([*faults_of(record, RECORD)] or [*contradictions(record)])
        assert said in found, (change, found)


def pipeline(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pipeline", "embed", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, "COLUMNS": "200"})


def first_sentences(tmp_path: Path, *names: str) -> Path:
    """A corpus of the beginnings of some demo documents: a model this small is slow."""
    for name in names:
        target = tmp_path / "corpus" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        text = (workspace() / "data" / "demo" / "corpus" / name).read_text()
        target.write_text(text[: text.index(". ", 250) + 1])
    return tmp_path / "corpus"


@pytest.mark.slow
@pytest.mark.e2e
def test_the_four_steps_by_the_embedded_llm(tmp_path: Path) -> None:
    corpus = first_sentences(tmp_path, "alarms/drip-rail.md", "parts/mast-winch.md")
    shape = ("embed_model=null", "num_pairs=1", "min_complexity=1", "max_artifacts_per_type=1", "max_tokens=224")
    about = (f"run_dir={tmp_path}", f"corpus_dir={corpus}", "provider=embedded", "temperature=0.3", *shape)
    pipeline("sdg", "-c", "default", *about)  # without a pair it ends with a failure, after its files are written
    folder = tmp_path / "stage0_sdg"
    records = checked(folder)
    assert [record["file_name"] for record in records] == [["alarms/drip-rail.md"], ["parts/mast-winch.md"]]
    roles = json.loads((folder / "usage.json").read_text())["roles"]
    assert set(roles) == {"artifact_extraction", "qa_generation", "quality_judge"}
    kept = sum(len(record["deduplicated_qa_pairs"]) for record in records)
    for role, wanted in (("artifact_extraction", 2), ("qa_generation", 2), ("quality_judge", kept)):
        assert roles[role]["calls_made"] == wanted + roles[role]["repair_turns"] and not roles[role]["calls_failed"]
        assert roles[role]["repair_turns"] <= wanted
    rejected = [json.loads(line) for line in (folder / "rejected.jsonl").read_text().splitlines()]
    assert all(item["reply"] and item["finish_reason"] in ("stop", "length") for item in rejected)
    for record in records:  # a window without a pair was told what is wrong, and says why
        of_pairs = [item for item in rejected if [item["document"], item["role"]] == [record["source_id"], QA]]
        assert of_pairs or record["qa_generation"]["pairs"]
    without_pair = sum(not record["qa_generation"]["pairs"] for record in records)
    assert roles["qa_generation"]["repair_turns"] >= without_pair


@pytest.mark.slow
@pytest.mark.e2e
def test_prep_takes_what_the_embedded_llm_wrote_and_judged(tmp_path: Path) -> None:
    """The questions format, which this model can do: each passage has some, so that there is something to judge."""
    names = ("cistern", "drip-rail", "lift-pump", "mast-winch", "sail-bank", "lamp-chamber")
    corpus = first_sentences(tmp_path, *(f"alarms/{name}.md" for name in names))
    shape = ("num_files=null", "quality_judge=llm", "max_tokens=256")
    done = pipeline("sdg", "-c", "smoke", f"run_dir={tmp_path}", f"corpus_dir={corpus}", *shape)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    records = checked(tmp_path / "stage0_sdg")
    pairs = sum(len(record["deduplicated_qa_pairs"]) for record in records)
    judged = json.loads((tmp_path / "stage0_sdg" / "usage.json").read_text())["roles"]["quality_judge"]
    assert judged["calls_made"] == pairs >= 3
    done = pipeline("prep", "-c", "smoke", f"run_dir={tmp_path}", "quality_threshold=0")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert json.loads((tmp_path / "stage1_data_prep" / "train.json").read_text())["data"]
