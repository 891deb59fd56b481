"""Compare every form of one model with torch, and keep the report up to date, also when a form fails."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

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
            PipelineError: the export does not give what torch gives.
        """
        reference, samples = self.reference, self.samples
        if longest is not None:
            short = [row for row, tokens in enumerate(reference.tokens) if self.family.length(tokens) <= longest]
            reference = replace(
                reference, tokens=[reference.tokens[row] for row in short], outputs=reference.outputs[short]
            )
            samples = [samples[row] for row in short]
        parity = self.family.compare(reference, exported, samples, dtype, self.config)
        self.results.append(replace(parity, form=form))
        write_report(self.folder, self.results, self.family.counts(self.samples), self.data)
        self.results[-1].require()
        return self.results[-1]
