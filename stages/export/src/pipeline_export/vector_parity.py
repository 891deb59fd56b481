"""Vectors of torch against those of the export: cosine, and who is near whom."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.retrieval.encoder import BiEncoder
from pipeline.retrieval.onnx_encoder import OnnxEncoder
from pipeline_export.parity import Measured, Parity, Reference, shared_fields
from pipeline_export.texts import ParityText

TOP = 10


@dataclass(frozen=True, kw_only=True)
class VectorParity(Parity):
    """How close an exported bi-encoder came to torch."""

    unit = "texts"
    gives = "vectors"

    min_cosine: float
    """The lowest cosine that passes."""
    limit_key: str = "parity_min_cosine"
    cosine: float
    """The lowest cosine found, over all texts and batch sizes."""
    top_agreement: float
    """Mean share of each query's first `TOP` passages that both sides name."""

    @property
    def close(self) -> bool:
        return self.cosine >= self.min_cosine

    def gap(self) -> str:
        return f"lowest cosine {self.cosine:.6f} < {self.limit_key}={self.min_cosine}"

    def shown(self) -> str:
        lowest = f"lowest cosine {self.cosine:.7f} (needs {self.min_cosine})"
        return f"{lowest}, largest difference {self.max_abs_diff:.1e}, top {TOP} agreement {self.top_agreement:.1%}"

    def listed(self) -> dict[str, float]:
        return {"cosine": self.cosine, "texts": self.compared}


def reference_of(model: BiEncoder, texts: Sequence[ParityText]) -> Reference:
    tokens = [model.tokenize([item.text], item.kind)[0] for item in texts]
    return Reference.of(tokens, lambda some: model.encode_tokens(some, batch_tokens=1))


def compare(
    reference: Reference,
    exported: OnnxEncoder,
    texts: Sequence[ParityText],
    dtype: str,
    min_cosine: float,
    limit_key: str = "parity_min_cosine",
) -> VectorParity:
    """Run the export over all texts, alone and in padded batches, and compare with torch.

    `limit_key`: the key that sets the limit.
    """
    tokens = [exported.tokenize([item.text], item.kind)[0] for item in texts]
    measured = Measured.of(reference, tokens, exported.forward)
    cosines = [_cosines(reference.outputs, vectors) for vectors in measured.outputs]
    for batch, found in zip(measured.batches, cosines, strict=True):
        batch["min_cosine"] = float(found.min())
    lowest = np.min(cosines, axis=0)
    index = int(lowest.argmin())
    lengths = [len(item) for item in reference.tokens]
    return VectorParity(
        **shared_fields(reference, tokens, measured, lengths, dtype),
        worst=f"a {texts[index].kind} of {lengths[index]} tokens",
        min_cosine=min_cosine,
        limit_key=limit_key,
        cosine=float(lowest[index]),
        top_agreement=_agreement(reference.outputs, measured.outputs[-1], texts),
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
    if not queries or not passages:  # an engine for short texts may have seen one kind only
        return 1.0
    reference, vectors = np.nan_to_num(reference), np.nan_to_num(vectors, posinf=0, neginf=0)
    ranked = [np.argsort(-(each[queries] @ each[passages].T), axis=1)[:, :TOP] for each in (reference, vectors)]
    shared = [len(set(a) & set(b)) / len(a) for a, b in zip(*ranked, strict=True)]
    return float(np.mean(shared))
