"""Everything prep made, for those who write it and those who tell of it."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.contract import EncodingContract
from pipeline.records.training import TrainingRow
from pipeline_prep.funnel import Funnel
from pipeline_prep.mining.task import Mined, MiningTask
from pipeline_prep.questions import Converted
from pipeline_prep.split import Splits


@dataclass(frozen=True)
class Side:
    """Train or val: its rows, what mining was asked and what it found."""

    rows: list[TrainingRow]
    task: MiningTask
    mined: Mined


@dataclass(frozen=True)
class Prepared:
    """`contract` is that of the mining model; `ann_recall` is None where the search was exact."""

    funnel: Funnel
    converted: Converted
    splits: Splits
    train: Side
    val: Side
    unrolled: list[TrainingRow]
    contract: EncodingContract
    ann_recall: float | None = None

    @property
    def test_size(self) -> int:
        """Questions of the test set, ours or the frozen one."""
        return len(self.splits.frozen.queries if self.splits.frozen else self.splits["test"])
