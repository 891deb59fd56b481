"""The demo corpus and its questions keep what ABOUT.md promises."""

import json
import re
from collections import Counter
from pathlib import Path

from pipeline.home import workspace

DEMO = workspace() / "data" / "demo"
DOCUMENTS = {
    str(path.relative_to(DEMO / "corpus")): path.read_text("utf-8") for path in (DEMO / "corpus").rglob("*.md")
}


def questions(half: str) -> list[dict[str, str]]:
    lines = Path(DEMO / "questions" / f"{half}.jsonl").read_text("utf-8").splitlines()
    return [json.loads(line) for line in lines]


DEV, TEST = questions("dev"), questions("test")


def test_there_are_enough_documents_of_the_right_length():
    assert len(DOCUMENTS) >= 60
    for name, text in DOCUMENTS.items():
        assert 150 <= len(text.split()) <= 400, name


def test_there_are_enough_questions_in_two_halves_by_document():
    assert len(DEV) + len(TEST) >= 300
    assert abs(len(DEV) - len(TEST)) <= 0.05 * len(DEV)
    assert not {row["doc"] for row in DEV} & {row["doc"] for row in TEST}
    assert {row["doc"] for row in DEV + TEST} == set(DOCUMENTS)


def test_every_quote_stands_verbatim_in_its_document_and_nowhere_else():
    for row in DEV + TEST:
        assert row["quote"] in DOCUMENTS[row["doc"]], row
        assert sum(row["quote"] in text for text in DOCUMENTS.values()) == 1, row


def test_ids_and_questions_are_unique():
    assert len({row["_id"] for row in DEV + TEST}) == len(DEV) + len(TEST)
    assert len({row["text"].lower() for row in DEV + TEST}) == len(DEV) + len(TEST)


def test_no_sentence_stands_in_two_documents():
    sentences = Counter()
    for text in DOCUMENTS.values():
        sentences.update({part for part in re.split(r"(?<=[.!?])\s+", text) if len(part) > 30})
    assert [sentence for sentence, count in sentences.items() if count > 1] == []
