"""A BEIR folder: its corpus, and the questions of every split that it has judgements of."""

from __future__ import annotations

from pathlib import Path

from pipeline.errors import PipelineError
from pipeline.records.sources.beir import SPLITS, documents_of, identified, judgements, metadata_of
from pipeline_prep.funnel import Funnel
from pipeline_prep.inputs.gathered import Gathered
from pipeline_prep.inputs.metadata import plain
from pipeline_prep.questions import Converted, question_id

_STRONGEST = ("test", "val", "train")
"""A question that stands in two splits belongs to the first of these: nothing leaves the test set for training."""


def read_beir(path: Path, funnel: Funnel) -> Converted:
    """The whole corpus, and the judged questions with their split in `given`; a split without a file is not given.

    The source documents of a passage are its `metadata.documents`, else the passage is its own document. Passages
    judged 0 or less are negatives.

    Args:
        path: the folder, or the judgements of one split in it (the others then do not count).

    Raises:
        PipelineError: a malformed row, an id that stands twice, a judgement of an unknown question or passage, no
            judgements.
    """
    folder = path.parent.parent if path.is_file() else path
    splits = _splits(folder, path)
    gathered = Gathered()
    corpus = _corpus(folder / "corpus.jsonl", gathered)
    asked = {
        name: (row["text"].strip(), metadata_of(row, where))
        for where, name, row in identified(folder / "queries.jsonl", "question")
    }
    given: dict[str, str] = {}
    read = kept = 0
    for split, file in splits:
        for query, (line, judged) in judgements(file, asked, corpus).items():
            where, (text, metadata), read = f"{file}:{line}", asked[query], read + 1
            if not text:
                funnel.reject("empty question", where, "", f"question {query}", step="kept")
                continue
            right, wrong = _sides(judged, corpus)
            if not right:
                funnel.reject("no positive", where, text, "no passage with text is judged above 0", step="kept")
                continue
            documents = gathered.documents_of(right)
            before = given.setdefault(question_id(text, documents), split)
            if before != split:
                funnel.reject("asked in two splits", where, text, f"kept in {before}", step="kept")
                continue
            gathered.question(text, documents, right, plain(metadata), where, wrong)
            kept += 1
    judged_in = ", ".join(file.name for _, file in splits)
    funnel.close("read", read, f"judged in {judged_in}; {len(asked):,} questions, {len(corpus):,} passages")
    funnel.close("kept", kept, f"{gathered.passages:,} distinct passages")
    return gathered.finish({name: split for name, split in given.items() if split})


def _splits(folder: Path, path: Path) -> list[tuple[str, Path]]:
    """(split, its judgements), the test set first; a file of an unknown name stands for no split ("")."""
    if path.is_file():
        names = [split for split, stems in SPLITS.items() if path.stem in stems]
        return [(names[0] if names else "", path)]
    found = []
    for split in _STRONGEST:
        files = [folder / "qrels" / f"{stem}.tsv" for stem in SPLITS[split]]
        there = [file for file in files if file.is_file()]
        if len(there) > 1:
            raise PipelineError(
                f"{folder / 'qrels'} holds {' and '.join(file.name for file in there)}, which are all {split}",
                fix="keep one of them",
            )
        found += [(split, file) for file in there]
    if not found:
        held = ", ".join(sorted(item.name for item in (folder / "qrels").iterdir())) or "nothing"
        raise PipelineError(
            f"{folder / 'qrels'} holds {held}, but no train.tsv, dev.tsv or test.tsv",
            fix="name the judgements themselves: sdg_input_path=FOLDER/qrels/FILE.tsv",
        )
    return found


def _corpus(path: Path, gathered: Gathered) -> dict[str, str | None]:
    """Id in the corpus -> id here; None for a passage without text."""
    return {
        name: gathered.passage(row["text"], row["title"], documents_of(row, where))
        for where, name, row in identified(path, "passage")
    }


def _sides(judged: dict[str, int], corpus: dict[str, str | None]) -> tuple[list[str], list[str]]:
    """The passages judged above 0, best first, and the others."""
    ranked = sorted(judged, key=lambda name: (-judged[name], name))
    right = [key for name in ranked if judged[name] > 0 and (key := corpus[name])]
    return right, [key for name in ranked if judged[name] <= 0 and (key := corpus[name])]
