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
    named.update(name for metadata in test_set.metadata.values() for name in _file_names(metadata.get("file_name")))
    return Protected(
        frozenset(named),
        list(document_texts(test_set.corpus.values(), named).values()),
        [test_set.corpus[key].text for key in relevant],
        list(test_set.queries.values()),
    )


def _file_names(value: object) -> list[str]:
    names = value if isinstance(value, list) else [value]
    return [name for name in names if isinstance(name, str)]
