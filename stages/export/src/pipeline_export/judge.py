"""Compare every form of one model with torch, and keep the report up to date, also when a form fails."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pipeline.errors import PipelineError
from pipeline.retrieval.onnx_session import OnnxModel
from pipeline.schemas.export import ExportConfig
from pipeline_export.families import ExportFamily
from pipeline_export.listing import write_report
from pipeline_export.parity import Parity, Reference


@dataclass
class Judge:
    """What torch said about the samples. `folder`: the stage's; `data`: where the samples come from."""

    family: ExportFamily
    config: ExportConfig
    samples: list[Any]
    reference: Reference
    folder: Path
    data: Path | None
    results: list[Parity] = field(default_factory=list)

    @property
    def first(self) -> Parity:
        """The parity of the fp32 model."""
        return self.results[0]

    def __call__(self, exported: OnnxModel, dtype: str, form: str = "ONNX model", longest: int | None = None) -> Parity:
        """Compare, report, and let pass. `longest`: samples of more tokens are left out.

        Raises:
            PipelineError: the export does not give what torch gives, or all samples were left out.
        """
        reference, samples = self.reference, self.samples
        if longest is not None:
            short = self._rows_up_to(longest)
            reference = replace(
                reference, tokens=[reference.tokens[row] for row in short], outputs=reference.outputs[short]
            )
            samples = [samples[row] for row in short]
        parity = self.family.compare(reference, exported, samples, dtype, self.config)
        self.results.append(replace(parity, form=form))
        write_report(self.folder, self.results, self.family.counts(self.samples), self.data)
        self.results[-1].require()
        return self.results[-1]

    def _rows_up_to(self, longest: int) -> list[int]:
        """Numbers of the samples that have at most `longest` tokens."""
        lengths = [self.family.length(tokens) for tokens in self.reference.tokens]
        rows = [row for row, length in enumerate(lengths) if length <= longest]
        if not rows:
            raise PipelineError(
                f"nothing to compare the engine by: it takes {longest} tokens, the shortest sample has {min(lengths)}",
                fix="raise trt_max_seq_len",
            )
        return rows
