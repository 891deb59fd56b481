"""BEIR folders as training rows: the judgements of one split, one row for each relevant passage."""

from __future__ import annotations

import math
from collections.abc import Container, Iterator
from pathlib import Path
from typing import Any

from pipeline.errors import PipelineError
from pipeline.records.sources.check import Ref, as_id, as_list, as_object, as_text, encodable
from pipeline.records.sources.corpora import Corpora
from pipeline.records.sources.draft import Corpus, Draft, Part, Strings
from pipeline.records.sources.passages import passage_table
from pipeline.run.files import read_jsonl

SPLITS = {"train": ("train",), "val": ("dev", "val", "validation"), "test": ("test",)}
"""Split -> names of its judgements, the first that is there counts."""


def is_beir(path: Path) -> bool:
    """A BEIR folder, or the judgements of one split inside it."""
    folder = _folder(path)
    return (folder / "corpus.jsonl").is_file() and (folder / "queries.jsonl").is_file() and (folder / "qrels").is_dir()


def read_beir_rows(path: Path, kind: str, corpora: Corpora) -> Part:
    """Rows of a split: `train`, or for validation `dev`, `val` or `validation`; or of the judgements file given.

    For training a question with several relevant passages becomes several rows `<id>_0`, `<id>_1`, …, each with its
    own positive first; for validation it stays one row. Passages judged 0 or less are negatives.

    Raises:
        PipelineError: a file is missing or malformed, or a judgement names an unknown passage or question.
    """
    folder = _folder(path)
    corpora.need_no_instructions(str(folder))
    qrels = path if path.is_file() else _qrels(folder, kind)
    corpus = _corpus(folder / "corpus.jsonl")
    questions = _questions(folder / "queries.jsonl")
    draft = Draft(str(qrels), "line")
    for question_id, (line, judged) in judgements(qrels, questions).items():
        ranked = sorted(((score, name) for name, score in judged.items() if score > 0), key=lambda item: -item[0])
        positives: list[Ref] = [(name, math.nan) for _, name in ranked]
        negatives: list[Ref] = [(name, math.nan) for name, score in judged.items() if score <= 0]
        turns = range(len(positives)) if kind == "train" else range(min(1, len(positives)))
        for turn in turns:
            name = f"{question_id}_{turn}" if len(turns) > 1 else question_id
            rotated = [positives[turn], *positives[:turn], *positives[turn + 1 :]]
            draft.add(line, name, questions[question_id], rotated, negatives)
    return draft.by_id([corpus], [folder / "corpus.jsonl", folder / "queries.jsonl", qrels])


def _folder(path: Path) -> Path:
    return path.parent.parent if path.is_file() and path.parent.name == "qrels" else path


def _qrels(folder: Path, kind: str) -> Path:
    wanted = [folder / "qrels" / f"{name}.tsv" for name in SPLITS[kind]]
    for path in wanted:
        if path.is_file():
            return path
    found = ", ".join(sorted(path.name for path in (folder / "qrels").iterdir())) or "nothing"
    raise PipelineError(
        f"{folder / 'qrels'} holds {found}, but not {' or '.join(path.name for path in wanted)}",
        fix="name the judgements themselves, such as FOLDER/qrels/test.tsv",
    )


def _corpus(path: Path) -> Corpus:
    names, texts, titles = Strings(), Strings(), Strings()
    for _, name, row in identified(path, "passage"):
        names.extend([name])
        texts.extend([row["text"]])
        titles.extend([row["title"]])
    return Corpus(str(path), str(path), passage_table(names.finish(), texts.finish(), titles.finish()))


def _questions(path: Path) -> dict[str, str]:
    return {
        name: as_text(row["text"], f"{where} ({name})", "question") for where, name, row in identified(path, "question")
    }


def identified(path: Path, what: str) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """(where, id, row) of corpus.jsonl or queries.jsonl; `text` and `title` of a row are text, perhaps empty.

    Raises:
        PipelineError: a malformed row, or an id that was used before.
    """
    seen: set[str] = set()
    for line, value in read_jsonl(path):
        where = f"{path}:{line}"
        row = as_object(value, where)
        name = as_id(row.get("_id"), where, "_id")
        if name in seen:
            raise PipelineError(f"{where}: {what} id {name!r} was used before", fix=f"give each {what} its own id")
        seen.add(name)
        text, title = row.get("text"), row.get("title")
        if not isinstance(text, str) or not isinstance(title, (str, type(None))):
            raise PipelineError(f"{where} ({name}): text and title must be text")
        row["text"], row["title"] = encodable(text, where, "text"), encodable(title or "", where, "title")
        yield where, name, row


def metadata_of(row: dict[str, Any], where: str) -> dict[str, Any]:
    """What a row of `identified` says of its question or passage; nothing where it has no `metadata`."""
    return as_object(row.get("metadata") or {}, f"{where}: metadata")


def documents_of(row: dict[str, Any], where: str) -> tuple[str, ...]:
    """The source files of a passage, `metadata.documents`: a list of names, or one name."""
    names = as_list(metadata_of(row, where).get("documents"))
    return tuple(as_text(name, where, "metadata.documents") for name in names)


def judgements(
    path: Path, questions: Container[str] | None = None, passages: Container[str] | None = None
) -> dict[str, tuple[int, dict[str, int]]]:
    """Question id -> (first line, {passage id: score}) in file order.

    Args:
        questions, passages: the ids that there are; None: every id may be one.

    Raises:
        PipelineError: a malformed line, or an unknown question or passage.
    """
    judged: dict[str, tuple[int, dict[str, int]]] = {}
    try:
        with path.open(encoding="utf-8-sig") as stream:
            for number, line in enumerate(stream, 1):
                parts = line.rstrip("\r\n").split("\t")
                if not line.strip() or (number == 1 and parts[0] == "query-id"):
                    continue
                if len(parts) != 3 or not _is_score(parts[2]):
                    shown = line.rstrip("\r\n")[:80]
                    raise PipelineError(f"{path}:{number}: {shown!r} is not query-id<TAB>corpus-id<TAB>score")
                if questions is not None and parts[0] not in questions:
                    raise PipelineError(f"{path}:{number}: question {parts[0]!r} is not in queries.jsonl")
                if passages is not None and parts[1] not in passages:
                    raise PipelineError(f"{path}:{number}: passage {parts[1]!r} is not in corpus.jsonl")
                judged.setdefault(parts[0], (number, {}))[1][parts[1]] = int(parts[2])
    except OSError as error:
        raise PipelineError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise PipelineError(f"{path}: not UTF-8: {error.reason} at byte {error.start}") from error
    return judged


def _is_score(text: str) -> bool:
    digits = text.strip().removeprefix("-")
    return digits.isascii() and digits.isdigit() and len(digits) < 10
