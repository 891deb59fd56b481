"""Other forms of the same vectors, which take less room in an index: cut short, 8 bits a number, one bit a number.

What an index would hold is made here with numpy and searched with fp32 products: the rankings are those of such an
index, its speed is not.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from pipeline.errors import PipelineError
from pipeline.retrieval.passages import Passages

_LEVELS = 127
_SEARCHED_AT_ONCE = 16_384


class Form(Protocol):
    """One form. Vectors go in and come out as fp32 [n, D]; only `Cut` changes D."""

    @property
    def name(self) -> str: ...

    @property
    def meaning(self) -> str:
        """What was done; other words make earlier numbers fall."""
        ...

    def vector_bytes(self, dimension: int) -> int:
        """What a passage of `dimension` numbers takes in this form."""
        ...

    def fitted(self, passages: Passages) -> Form:
        """The form with what it must know of the corpus."""
        ...

    def passages(self, vectors: np.ndarray) -> np.ndarray: ...

    def queries(self, vectors: np.ndarray) -> np.ndarray: ...


@dataclass(frozen=True)
class Cut:
    """The first `size` numbers, of unit length again where the model's vectors are.

    Reference: Kusupati et al., "Matryoshka Representation Learning", 2022 (https://arxiv.org/abs/2205.13147).
    """

    size: int
    normalize: bool

    @property
    def name(self) -> str:
        return str(self.size)

    @property
    def meaning(self) -> str:
        return f"the first {self.size} numbers"

    def vector_bytes(self, dimension: int) -> int:
        return 4 * self.size

    def fitted(self, passages: Passages) -> Cut:
        check_dims([self.size], passages.dimension, "the model")
        return self

    def passages(self, vectors: np.ndarray) -> np.ndarray:
        if self.size == vectors.shape[1]:
            return vectors  # not even rounded again
        kept = vectors[:, : self.size]
        return _divided(kept, np.linalg.norm(kept, axis=1, keepdims=True)) if self.normalize else kept

    queries = passages


@dataclass(frozen=True)
class Int8:
    """Integers from -127 to 127: what a dimension's largest size over the whole corpus is becomes 127; 0 stays 0.

    The scales of the dimensions go into the question, which is then rounded to integers by its own largest number: a
    score is one sum of products of integers, times one number for each question.

    Reference: the symmetric per-channel quantizer of Krishnamoorthi, "Quantizing deep convolutional networks for
    efficient inference: A whitepaper", 2018 (https://arxiv.org/abs/1806.08342).
    """

    scales: np.ndarray | None = None
    name: str = "int8"
    meaning: str = "int8, symmetric, each dimension by its largest size over the corpus"

    def vector_bytes(self, dimension: int) -> int:
        return dimension

    def fitted(self, passages: Passages) -> Int8:
        largest = np.zeros(passages.dimension, np.float32)
        for _, vectors in passages.blocks(_SEARCHED_AT_ONCE):
            np.maximum(largest, np.abs(vectors).max(0), out=largest)
        return Int8(largest / _LEVELS)

    def passages(self, vectors: np.ndarray) -> np.ndarray:
        return np.rint(_divided(vectors, self.scales))

    def queries(self, vectors: np.ndarray) -> np.ndarray:
        scaled = vectors * self.scales
        step = np.abs(scaled).max(1, keepdims=True) / _LEVELS
        return np.rint(_divided(scaled, step)) * step


@dataclass(frozen=True)
class Binary:
    """The sign of each number, 1 or -1 (0 is -1); questions stay as they are.

    Questions are few, so that keeping them costs no room; unlike the Hamming distance such a score tells passages apart
    that differ in equally many bits. An index packs the signs, which changes no score: here they are not packed.

    References: Gordo et al., "Asymmetric Distances for Binary Embeddings", 2014
    (https://doi.org/10.1109/TPAMI.2013.101); for text retrieval Yamada, Asai & Hajishirzi, "Efficient Passage Retrieval
    with Hashing for Open-domain Question Answering", 2021 (https://arxiv.org/abs/2106.00882).
    """

    name: str = "binary"
    meaning: str = "signs of the passages' numbers, questions in full"

    def vector_bytes(self, dimension: int) -> int:
        return -(-dimension // 8)

    def fitted(self, passages: Passages) -> Binary:
        return self

    def passages(self, vectors: np.ndarray) -> np.ndarray:
        return np.where(vectors > 0, np.float32(1), np.float32(-1))

    def queries(self, vectors: np.ndarray) -> np.ndarray:
        return vectors


class Formed:
    """`Passages` of another form, made block by block."""

    def __init__(self, source: Passages, form: Form) -> None:
        self._source, self._form = source, form

    @property
    def dimension(self) -> int:
        return self._form.passages(np.ones((1, self._source.dimension), np.float32)).shape[1]

    def __len__(self) -> int:
        return len(self._source)

    def blocks(self, size: int, first: int = 0, step: int = 1) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for numbers, vectors in self._source.blocks(size, first, step):
            yield numbers, self._form.passages(vectors)

    def take(self, numbers: np.ndarray) -> np.ndarray:
        return self._form.passages(self._source.take(numbers))


def form_named(name: str, normalize: bool) -> Form:
    """`int8`, `binary`, or a number of dimensions; `normalize`: the model's vectors have length one."""
    forms: dict[str, Form] = {"int8": Int8(), "binary": Binary()}
    return forms[name] if name in forms else Cut(int(name), normalize)


def check_dims(dims: Sequence[int], dimension: int | None, model: str) -> None:
    """Refuse sizes beyond the model's own; None: it is not known yet.

    Raises:
        PipelineError: a size is larger than `dimension`.
    """
    wrong = [size for size in dims if dimension is not None and size > dimension]
    if wrong:
        raise PipelineError(
            f"dims names {', '.join(map(str, wrong))}, but the vectors of {model} have {dimension} dimensions",
            fix=f"name sizes up to {dimension}",
        )


def _divided(vectors: np.ndarray, by: np.ndarray) -> np.ndarray:
    """fp32; 0 where there is nothing to divide by."""
    return np.divide(vectors, by, out=np.zeros(vectors.shape, np.float32), where=by > 0)
