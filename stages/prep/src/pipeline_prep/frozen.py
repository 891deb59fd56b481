"""An earlier test set that is used again (`frozen_eval`)."""

from __future__ import annotations

from pathlib import Path

from pipeline.errors import PipelineError
from pipeline.records.beir import TestSet, read_beir
from pipeline_prep.document_groups import document_texts
from pipeline_prep.leaks import Protected


def read_frozen(path: str) -> TestSet:
    """The test set of a BEIR folder. Its corpus stays its haystack, whatever our corpus holds by now.

    Raises:
        PipelineError: the folder is malformed or judges no question.
    """
    test_set = read_beir(Path(path))
    if not test_set.qrels:
        raise PipelineError(f"{path}: qrels/test.tsv judges no passage relevant", fix="set frozen_eval to a test set")
    return test_set


def protected_by_frozen(test_set: TestSet) -> Protected:
    """Its documents (of the passages that count, and those its questions name), passages and questions."""
    relevant = sorted({key for judged in test_set.qrels.values() for key in judged})
    named = {name for key in relevant for name in test_set.corpus[key].documents}
    named.update(name for metadata in test_set.metadata.values() for name in file_names(metadata))
    passages = test_set.corpus.values()
    unnamed = [test_set.corpus[key].text for key in relevant if not test_set.corpus[key].documents]
    return Protected(
        documents=frozenset(named),
        document_texts=[*document_texts(passages, named).values(), *unnamed],
        content=[item.text for item in passages if not named.isdisjoint(item.documents)],
        answers=[test_set.corpus[key].text for key in relevant],
        unnamed=unnamed,
        questions=list(test_set.queries.values()),
    )


def file_names(metadata: object) -> list[str]:
    """The source documents that the metadata of a question name: `file_name`, one or a list."""
    value = metadata.get("file_name") if isinstance(metadata, dict) else None
    names = value if isinstance(value, list) else [value]
    return [name for name in names if isinstance(name, str)]
