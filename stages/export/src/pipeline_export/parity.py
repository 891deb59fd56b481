"""The gate: an export is published only if it gives the vectors that torch gives."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.errors import PipelineError
from pipeline.retrieval.encoder import BiEncoder
from pipeline.retrieval.onnx_encoder import OnnxEncoder
from pipeline_export.texts import ParityText

BATCH_SIZES = (1, 7, 32)
TOP = 10


@dataclass(frozen=True)
class Reference:
    """What torch says, one text at a time, so that no padding is involved.

    Attributes:
        tokens: token ids of each text.
        vectors: fp32 [texts, dimension].
        texts_per_second: how fast torch was, one text at a time.
    """

    tokens: list[list[int]]
    vectors: np.ndarray
    texts_per_second: float

    @classmethod
    def of(cls, model: BiEncoder, texts: Sequence[ParityText]) -> Reference:
        tokens = [model.tokenize([item.text], item.kind)[0] for item in texts]
        model.encode_tokens(tokens[:1])  # the first call pays for warming up
        begin = time.perf_counter()
        vectors = model.encode_tokens(tokens, batch_tokens=1)
        return cls(tokens, vectors, len(texts) / (time.perf_counter() - begin))


@dataclass(frozen=True)
class Parity:
    """How close an export came to torch. `batches`: one entry per batch size."""

    dtype: str
    min_cosine: float
    """The lowest cosine that passes."""
    texts: int
    shortest: int
    longest: int
    cosine: float
    """The lowest cosine found, over all texts and batch sizes."""
    max_abs_diff: float
    worst: str
    other_tokens: int
    """Texts that the exported tokenizer cuts into other tokens than the model's own."""
    top_agreement: float
    """Mean share of each query's first `TOP` passages that both sides name."""
    batches: list[dict[str, float]]
    torch_texts_per_second: float
    onnx_texts_per_second: float

    @property
    def passed(self) -> bool:
        return self.other_tokens == 0 and self.cosine >= self.min_cosine

    def require(self) -> None:
        """Raises PipelineError if the gate does not hold."""
        if self.other_tokens:
            raise PipelineError(
                f"the exported tokenizer splits {self.other_tokens} of {self.texts} texts unlike the model's own",
                fix="nothing was published; see parity_report.json",
            )
        if not self.passed:
            raise PipelineError(
                f"the {self.dtype} ONNX model does not give torch's vectors: lowest cosine {self.cosine:.6f} < "
                f"{self.min_cosine} ({self.worst})",
                fix="nothing was published; see parity_report.json, or lower parity_min_cosine if you accept this",
            )

    def as_record(self) -> dict[str, Any]:
        return {"passed": self.passed, **self.__dict__}


def compare(
    reference: Reference, exported: OnnxEncoder, texts: Sequence[ParityText], dtype: str, min_cosine: float
) -> Parity:
    """Run the export over all texts, alone and in padded batches, and compare with torch."""
    tokens = [exported.tokenize([item.text], item.kind)[0] for item in texts]
    other_tokens = sum(ours != theirs for ours, theirs in zip(tokens, reference.tokens, strict=True))
    exported.forward(tokens[:1])
    batches, cosines, rate = [], [], 0.0
    vectors = reference.vectors
    for size in BATCH_SIZES:
        begin = time.perf_counter()
        parts = [exported.forward(tokens[start : start + size]) for start in range(0, len(tokens), size)]
        if size == 1:
            rate = len(tokens) / (time.perf_counter() - begin)
        vectors = np.concatenate(parts)
        found = _cosines(reference.vectors, vectors)
        difference = float(np.nan_to_num(np.abs(reference.vectors - vectors), nan=np.inf).max())
        cosines.append(found)
        batches.append({"batch_size": size, "min_cosine": float(found.min()), "max_abs_diff": _finite(difference)})
    lowest = np.min(cosines, axis=0)
    index = int(lowest.argmin())
    lengths = [len(item) for item in reference.tokens]
    return Parity(
        dtype=dtype,
        min_cosine=min_cosine,
        texts=len(texts),
        shortest=min(lengths),
        longest=max(lengths),
        cosine=float(lowest[index]),
        max_abs_diff=max(item["max_abs_diff"] for item in batches),
        worst=f"a {texts[index].kind} of {lengths[index]} tokens",
        other_tokens=other_tokens,
        top_agreement=_agreement(reference.vectors, vectors, texts),
        batches=batches,
        torch_texts_per_second=round(reference.texts_per_second, 1),
        onnx_texts_per_second=round(rate, 1),
    )


def _cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Cosine of each pair of rows in fp64; -1 where it is not a number, which no threshold lets pass."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    with np.errstate(all="ignore"):
        cosine = (a * b).sum(1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))
    return np.where(np.isfinite(cosine), np.minimum(cosine, 1.0), -1.0)


def _agreement(reference: np.ndarray, vectors: np.ndarray, texts: Sequence[ParityText]) -> float:
    queries = [row for row, item in enumerate(texts) if item.kind == "query"]
    passages = [row for row, item in enumerate(texts) if item.kind == "passage"]
    reference, vectors = np.nan_to_num(reference), np.nan_to_num(vectors, posinf=0, neginf=0)
    ranked = [np.argsort(-(each[queries] @ each[passages].T), axis=1)[:, :TOP] for each in (reference, vectors)]
    shared = [len(set(a) & set(b)) / len(a) for a, b in zip(*ranked, strict=True)]
    return float(np.mean(shared))


def _finite(value: float) -> float:
    return value if np.isfinite(value) else float(np.finfo(np.float32).max)
