"""The gate: an export is published only if it gives what torch gives. Here: what both families share."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from pipeline.errors import PipelineError

BATCH_SIZES = (1, 7, 32)

Forward = Callable[[list[Any]], np.ndarray]


@dataclass(frozen=True)
class Reference:
    """What torch says, one text or pair at a time, so that no padding is involved.

    Attributes:
        tokens: token ids of each.
        outputs: fp32 [n, dimension] for vectors, [n] for logits.
        per_second: how fast torch was, one at a time.
    """

    tokens: list[Any]
    outputs: np.ndarray
    per_second: float

    @classmethod
    def of(cls, tokens: list[Any], forward: Forward) -> Reference:
        """`forward` gives the outputs of tokenized texts or pairs, each computed alone.

        Raises:
            PipelineError: the model itself gives values that are not finite.
        """
        forward(tokens[:1])  # the first call pays for warming up
        begin = time.perf_counter()
        outputs = forward(tokens)
        seconds = time.perf_counter() - begin
        if not np.isfinite(outputs).all():
            raise PipelineError(
                "torch itself gives values that are not finite", fix="its training failed: make the model again"
            )
        return cls(tokens, outputs, len(tokens) / seconds)


@dataclass(frozen=True)
class Measured:
    """What an export gave.

    Attributes:
        outputs: one array per batch size, of the shape of `Reference.outputs`.
        batches: one record per batch size, with the largest absolute difference from torch.
        per_second: one at a time.
    """

    outputs: list[np.ndarray]
    batches: list[dict[str, float]]
    per_second: float

    @classmethod
    def of(cls, reference: Reference, tokens: Sequence[Any], forward: Forward) -> Measured:
        """Run the export over all tokens, alone and in padded batches."""
        forward(list(tokens[:1]))
        outputs, batches, rate = [], [], 0.0
        for size in BATCH_SIZES:
            begin = time.perf_counter()
            parts = [forward(list(tokens[start : start + size])) for start in range(0, len(tokens), size)]
            if size == 1:
                rate = len(tokens) / (time.perf_counter() - begin)
            outputs.append(np.concatenate(parts))
            worst = float(differences(reference.outputs, outputs[-1]).max())
            batches.append({"batch_size": size, "max_abs_diff": worst})
        return cls(outputs, batches, rate)


@dataclass(frozen=True, kw_only=True)
class Parity(ABC):
    """How close an export came to torch. `batches`: one entry per batch size."""

    unit: ClassVar[str]
    """What was compared: texts or pairs."""
    gives: ClassVar[str]
    """What the model gives of each."""

    dtype: str
    form: str = "ONNX model"
    compared: int
    shortest: int
    longest: int
    max_abs_diff: float
    worst: str
    other_tokens: int
    """Texts or pairs that the exported tokenizer cuts into other tokens than the model's own."""
    batches: list[dict[str, float]]
    torch_per_second: float
    onnx_per_second: float

    @property
    def passed(self) -> bool:
        return self.other_tokens == 0 and self.close

    @property
    @abstractmethod
    def close(self) -> bool:
        """Whether the outputs are near enough to torch's."""

    @abstractmethod
    def gap(self) -> str:
        """The failed comparison: measured value, limit and key."""

    @abstractmethod
    def shown(self) -> str:
        """One line for the summary."""

    @abstractmethod
    def listed(self) -> dict[str, float]:
        """The figures that stand in exports.json."""

    @property
    def _not_published(self) -> str:
        return f"the {self.dtype} {self.form} was not published; see parity_report.json"

    def require(self) -> None:
        """Raises PipelineError if the gate does not hold."""
        if self.other_tokens:
            raise PipelineError(
                f"the exported tokenizer splits {self.other_tokens} of {self.compared} {self.unit} unlike the model's "
                "own",
                fix=self._not_published,
            )
        if not self.close:
            raise PipelineError(
                f"the {self.dtype} {self.form} does not give torch's {self.gives}: {self.gap()} ({self.worst})",
                fix=f"{self._not_published}, or change that limit if you accept this",
            )

    def as_record(self) -> dict[str, Any]:
        return {"passed": self.passed, **self.__dict__}


def shared_fields(
    reference: Reference, tokens: Sequence[Any], measured: Measured, lengths: Sequence[int], dtype: str
) -> dict[str, Any]:
    """The fields that every `Parity` has, but `worst`."""
    return {
        "dtype": dtype,
        "compared": len(lengths),
        "shortest": min(lengths),
        "longest": max(lengths),
        "max_abs_diff": max(item["max_abs_diff"] for item in measured.batches),
        "other_tokens": sum(ours != theirs for ours, theirs in zip(tokens, reference.tokens, strict=True)),
        "batches": measured.batches,
        "torch_per_second": round(reference.per_second, 1),
        "onnx_per_second": round(measured.per_second, 1),
    }


def differences(reference: np.ndarray, outputs: np.ndarray) -> np.ndarray:
    """Absolute differences; the largest number of fp32 where one is not a number, which no limit lets pass."""
    largest = float(np.finfo(np.float32).max)
    with np.errstate(all="ignore"):
        return np.nan_to_num(np.abs(reference - outputs), nan=largest, posinf=largest)
