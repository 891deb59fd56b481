"""BM25: passages ranked by the words they share with a question. Needs the extra `bm25`."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import version

import bm25s
import numpy as np
import Stemmer
from bm25s.tokenization import Tokenized, Tokenizer

K1, B = 1.5, 0.75
LANGUAGE = "english"
SETTINGS = f"lucene k1={K1} b={B} {LANGUAGE} stemmed"
IDENTITY = f"bm25s {version('bm25s')} {SETTINGS}"

_NOTHING = np.empty(0, np.int64)


class Bm25Index:
    """Inverted indexes of one or more fields, whose scores are added: Lucene's formula, English stop words and stems.

    Args:
        fields: for each field its text in every passage, in the same order; "" where a passage lacks it. Texts are
            read once, one after the other: only their word numbers stay in memory.
    """

    def __init__(self, *fields: Iterable[str]) -> None:
        self._fields = [_Field(texts) for texts in fields]

    def top(self, question: str, k: int, without: np.ndarray = _NOTHING) -> tuple[np.ndarray, np.ndarray]:
        """The `k` best passages that share a word with the question, less those in `without` (places, int64).

        Returns (places int64 [n <= k], scores fp32 [n]), best first; of equal scores the lower place comes first.
        """
        parts = [part for field in self._fields if (part := field.scores(question)) is not None]
        if not parts:
            return _NOTHING, np.empty(0, np.float32)
        scores = parts[0] if len(parts) == 1 else np.sum(parts, axis=0)
        scores[without] = 0
        found = np.flatnonzero(scores > 0)
        if len(found) > k:
            # Ties at the border are cut by place, not as a partial sort happens to leave them.
            least = np.partition(scores[found], len(found) - k)[len(found) - k]
            found = found[scores[found] >= least]
        best = found[np.argsort(-scores[found], kind="stable")][:k]
        return best.astype(np.int64), scores[best].astype(np.float32)


class _Field:
    """One field of all passages."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._words = Tokenizer(stopwords=LANGUAGE, stemmer=Stemmer.Stemmer(LANGUAGE))
        numbers = list(self._words.streaming_tokenize(texts, update_vocab=True, allow_empty=False))
        self._index = bm25s.BM25(k1=K1, b=B, method="lucene")
        self._empty = not self._words.get_vocab_dict()  # bm25s cannot index a field without a single word
        if not self._empty:
            vocabulary = Tokenized(numbers, self._words.get_vocab_dict())
            self._index.index(vocabulary, create_empty_token=False, show_progress=False)

    def scores(self, question: str) -> np.ndarray | None:
        """fp32 [passages], or None if no passage has a word of the question in this field."""
        (numbers,) = self._words.streaming_tokenize([question], update_vocab=False, allow_empty=False)
        return None if self._empty or not numbers else self._index.get_scores_from_ids(numbers)
