"""Training files as they stand on disk: every key, also those we do not know, is kept."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import PipelineError
from pipeline.records.sources.check import as_id, as_list, as_object, as_text
from pipeline.records.training import REQUIRED
from pipeline.run.files import atomic_open, read_json

_FIX = "turn it into a training file first: pipeline data convert FILE OUT.json"


@dataclass(frozen=True)
class Document:
    """A training file: `top` holds every key but `data`, whose objects are `rows`."""

    path: Path
    top: dict[str, Any]
    rows: list[dict[str, Any]]

    @classmethod
    def load(cls, path: Path) -> Document:
        """Read a file whose rows have the five documented fields; what these hold is not looked at.

        Raises:
            PipelineError: not a training file, or a row lacks a field.
        """
        document = read_json(path)
        if not isinstance(document, dict) or "corpus" not in document or not isinstance(document.get("data"), list):
            raise PipelineError(f'{path}: not a training file {{"corpus": {{"path": …}}, "data": […]}}', fix=_FIX)
        rows = document.pop("data")
        for number, item in enumerate(rows):
            where = f"{path}: row {number}"
            row = as_object(item, where)
            if missing := [name for name in REQUIRED if name not in row]:
                raise PipelineError(f"{where} ({row.get('question_id', '?')!s:.40}) lacks {', '.join(missing)}")
        loaded = cls(path, document, rows)
        loaded.corpus_folders()
        return loaded

    def where(self, row: int) -> str:
        return f"{self.path}: row {row} ({self.rows[row]['question_id']!s:.40})"

    def id_of(self, row: int, field: str = "question_id") -> str:
        return as_id(self.rows[row][field], self.where(row), field)

    def question(self, row: int) -> str:
        return as_text(self.rows[row]["question"], self.where(row), "question")

    def passages(self, row: int, field: str) -> list[str]:
        """The ids in `pos_doc` or `neg_doc`."""
        items = as_list(self.rows[row][field])
        return [as_id(_named(item), self.where(row), f"{field} id") for item in items]

    def known(self, row: int) -> list[str]:
        """Every passage that the row itself knows as an answer, each once: `known_pos_ids`, then its positives."""
        listed = as_list(self.rows[row].get("known_pos_ids"))
        known = [as_id(_named(item), self.where(row), "known_pos_ids") for item in listed]
        return list(dict.fromkeys([*known, *self.passages(row, "pos_doc")]))

    def question_of(self, row: int) -> tuple[str, str]:
        """Equal for the rows that one question was unrolled into: (corpus id, id of the original question)."""
        unrolled = self.rows[row].get("original_question_id") is not None
        name = "original_question_id" if unrolled else "question_id"
        return self.id_of(row, "corpus_id"), self.id_of(row, name)

    def corpus_folders(self) -> list[Path]:
        """The folders that `corpus` names, seen from the file's own folder."""
        return [self.path.parent / place for place in self._places()]

    def _places(self) -> list[str]:
        places = []
        for entry in as_list(self.top["corpus"]):
            place = entry.get("path") if isinstance(entry, dict) else None
            places.append(as_text(place, str(self.path), "corpus path"))
        if not places:
            raise PipelineError(f"{self.path}: `corpus` names no folder", fix='write {"corpus": {"path": FOLDER}}')
        return places

    def save(self, output: Path) -> Path:
        """Write the document, a row on each line; relative corpus paths lead to the same folders from there.

        Raises:
            PipelineError: a row holds a value that strict JSON cannot (NaN, half a surrogate pair).
        """
        top = {**self.top, "corpus": self._corpus_from(output.resolve().parent)}
        with atomic_open(output) as stream:
            for name, value in top.items():
                stream.write(f"{'{' if name == next(iter(top)) else ''}{_text(name, output, 'a key')}: ")
                stream.write(f"{_text(value, output, name)},\n")
            stream.write('"data": [')
            for number, row in enumerate(self.rows):
                stream.write(f"{',' if number else ''}\n{_text(row, output, self.where(number))}")
            stream.write("\n]}\n")
        return output

    def _corpus_from(self, folder: Path) -> Any:
        here = self.path.resolve().parent
        if folder == here:
            return self.top["corpus"]
        moved = [
            {**entry, "path": place if os.path.isabs(place) else Path(os.path.relpath(here / place, folder)).as_posix()}
            for entry, place in zip(as_list(self.top["corpus"]), self._places(), strict=True)
        ]
        return moved if isinstance(self.top["corpus"], list) else moved[0]


def _named(item: Any) -> Any:
    return item.get("id") if isinstance(item, dict) else item


def _text(value: Any, output: Path, where: str) -> str:
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
        text.encode("utf-8")
    except ValueError as error:
        raise PipelineError(
            f"{where} holds a value that cannot be written to {output}: {error}",
            fix="replace NaN, Infinity and halves of surrogate pairs",
        ) from error
    return text
