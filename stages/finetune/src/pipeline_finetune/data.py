"""Training data as every process sees it: token tables and row tables in one memory-mapped folder."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.contract import EncodingContract
from pipeline.records.sources.rows import Rows
from pipeline.run.files import replacing_folder
from pipeline_finetune.tokens import Ragged, Tokenize, TokenTable

MISSING = -1
_FORMAT = 1  # rises when the same rows would be written differently

TokenizePairs = Callable[[Sequence[str], Sequence[str]], tuple[Iterable[Sequence[int]], Iterable[int]]]
"""Formatted queries and passages -> token ids of each pair, and where its passage begins among them."""


@dataclass(frozen=True)
class Encode:
    """How texts become tokens. A cross-encoder gives `tokenize_pairs`, a bi-encoder the other two."""

    contract: EncodingContract
    tokenize_queries: Tokenize | None = None
    tokenize_passages: Tokenize | None = None
    tokenize_pairs: TokenizePairs | None = None


class Names(Sequence[str]):
    """Strings in a memory-mapped arrow file, made into Python ones when they are asked for."""

    def __init__(self, path: Path) -> None:
        import pyarrow as pa

        self._column = pa.ipc.open_file(pa.memory_map(str(path))).read_all().column(0)

    def __len__(self) -> int:
        return len(self._column)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return self._column[index].to_pylist()
        return self._column[int(index)].as_py()

    def __iter__(self) -> Iterator[str]:
        return (item.as_py() for item in self._column)


@dataclass
class RowTable:
    """Rows over a shared passage table.

    Attributes:
        question_ids: the rows' names, for messages.
        queries: tokens of each row's question; None for a cross-encoder, which reads pairs.
        positive: int64 [n], passage number of each row's positive.
        negatives: int64 [n, k], first negatives in file order, `MISSING` where there are fewer.
        known: numbers of every passage known to answer the row's question, its positive included.
        teacher: fp32 [n, 1 + k], a teacher's scores of the positive and the negatives, NaN where unknown; None where
            no row has any.
    """

    question_ids: Sequence[str]
    queries: TokenTable | None
    positive: np.ndarray
    negatives: np.ndarray
    known: Ragged = field(repr=False)
    teacher: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.question_ids)


@dataclass
class PairTable:
    """Query and passage together, for cross-encoders.

    Attributes:
        tokens: item `row * n_passages` is the row's positive, the next ones its negatives; empty where it has fewer.
        starts: int32 [items], where the passage begins.
        n_passages: passages per row.
    """

    tokens: TokenTable
    starts: np.ndarray
    n_passages: int


@dataclass
class TrainingData:
    """Training and validation rows and the tokens of every passage they name.

    Attributes:
        folder: where it lies; `open_data(folder)` gives the same in another process.
        passages: what `RowTable` numbers refer to; None for a cross-encoder.
        train_pairs, val_pairs: a cross-encoder's input; None for a bi-encoder.
        val_corpus: passages that validation searches; None for a cross-encoder, without validation, or where not asked.
        val_relevant: for each validation row the passages of `val_corpus` known to answer it.
    """

    folder: Path
    train: RowTable
    val: RowTable | None
    passages: TokenTable | None
    train_pairs: PairTable | None = None
    val_pairs: PairTable | None = None
    val_corpus: TokenTable | None = None
    val_relevant: Ragged | None = None


def prepare_data(
    folder: Path,
    train: Rows,
    val: Rows | None,
    *,
    n_passages: int,
    eval_negatives: int,
    encode: Encode,
    val_corpus_size: int = 0,
    seed: int = 0,
) -> TrainingData:
    """Tokenise what the rows name into a folder inside `folder`, or open it if this very data lies there.

    One process builds, under the stage's lock; the others call `open_data` afterwards. The new folder takes its name
    only when it is complete, and folders of other data beside it are removed.

    Args:
        n_passages: passages per training row: the positive and the first n_passages - 1 negatives in file order.
        eval_negatives: negatives per validation row.
        val_corpus_size: passages that validation searches (a bi-encoder only): those that validation rows name and
            others of their corpora, drawn by `seed`, up to this many; 0 makes none.
    """
    from pipeline_finetune.tables import build

    sizes = {"n_passages": n_passages, "eval_negatives": eval_negatives}
    if encode.tokenize_pairs or val is None:
        val_corpus_size = 0
    searched = {"size": val_corpus_size, "seed": seed, "corpus": val.corpus_digest()} if val_corpus_size and val else {}
    described = {
        "format": _FORMAT,
        "rows": [train.digest(), val.digest() if val else None],
        "contract": encode.contract.digest(),
        "pairs": encode.tokenize_pairs is not None,
        **sizes,
        **searched,
    }
    name = hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()[:16]
    target = folder / f"tokens-{name}"
    for other in folder.glob("tokens-*"):
        if other != target and other.is_dir():
            shutil.rmtree(other)
    if not target.is_dir():
        with replacing_folder(target) as temporary:
            build(temporary, train, val, **sizes, encode=encode, val_corpus_size=val_corpus_size, seed=seed)
    return open_data(target)


def open_data(folder: Path) -> TrainingData:
    """What `prepare_data` made, memory-mapped: processes on one machine share its pages."""
    has_val = (folder / "val.names.arrow").is_file()
    pairs = (folder / "train.pairs.tokens").is_file()
    searched = (folder / "val_corpus.tokens").is_file()
    return TrainingData(
        folder=folder,
        train=_open_rows(folder, "train"),
        val=_open_rows(folder, "val") if has_val else None,
        passages=None if pairs else TokenTable.open(folder, "passages"),
        train_pairs=_open_pairs(folder, "train") if pairs else None,
        val_pairs=_open_pairs(folder, "val") if pairs and has_val else None,
        val_corpus=TokenTable.open(folder, "val_corpus") if searched else None,
        val_relevant=_open_ragged(folder, "val_relevant") if searched else None,
    )


def _open_rows(folder: Path, part: str) -> RowTable:
    teacher = folder / f"{part}.teacher.npy"
    return RowTable(
        question_ids=Names(folder / f"{part}.names.arrow"),
        queries=TokenTable.open(folder, f"{part}.queries") if (folder / f"{part}.queries.tokens").is_file() else None,
        positive=_open(folder, f"{part}.positive"),
        negatives=_open(folder, f"{part}.negatives"),
        known=_open_ragged(folder, f"{part}.known"),
        teacher=np.load(teacher, mmap_mode="r") if teacher.is_file() else None,
    )


def _open_pairs(folder: Path, part: str) -> PairTable:
    width = _open(folder, f"{part}.negatives").shape[1] + 1
    return PairTable(TokenTable.open(folder, f"{part}.pairs"), _open(folder, f"{part}.starts"), width)


def _open_ragged(folder: Path, name: str) -> Ragged:
    return Ragged(_open(folder, f"{name}.offsets"), _open(folder, f"{name}.values"))


def _open(folder: Path, name: str) -> np.ndarray:
    return np.load(folder / f"{name}.npy", mmap_mode="r")
