"""What was published: `exports.json`, `parity_report.json` and the rows of the summary."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.run.files import write_json
from pipeline_export.parity import Parity


@dataclass(frozen=True)
class Export:
    """One published folder.

    Attributes:
        format: `onnx`, `tensorrt` or `tensorrt_rtx`.
        model: name of the model's file; a second file with its weights begins with the same name.
        parity: None where it could not be executed here.
        note: how it was made, for the summary.
    """

    folder: Path
    format: str
    dtype: str
    model: str
    parity: Parity | None
    note: str

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def size(self) -> int:
        """Bytes of the graph or engine and its weights."""
        return sum(path.stat().st_size for path in self.folder.glob(f"{self.model}*"))

    def parity_record(self) -> dict[str, Any]:
        if self.parity is None:
            return {"passed": None, "reason": NOT_EXECUTED}
        return {"passed": self.parity.passed, **self.parity.listed()}

    def rows(self) -> list[tuple[str, str]]:
        """Rows of the summary."""
        label = "ONNX" if self.format == "onnx" else "TensorRT"
        rows = [(f"{label} {self.dtype}", f"{self.size / 1e6:.1f} MB, {self.note}, {self.folder}")]
        if self.parity is None:
            return [*rows, ("  parity with torch", NOT_EXECUTED)]
        parity = self.parity
        speed = f"this form {parity.onnx_per_second}, torch {parity.torch_per_second}"
        return [
            *rows,
            ("  parity with torch", parity.shown()),
            (f"  {parity.unit} per second", f"{speed} (one at a time, this machine)"),
        ]


NOT_EXECUTED = "engine built, not executed: needs an NVIDIA GPU and full TensorRT"


def write_report(folder: Path, results: list[Parity], counts: dict[str, int], data: Path | None) -> Path:
    """`parity_report.json`: every comparison of this run, also the one that failed."""
    return write_json(
        folder / "parity_report.json",
        {
            "schema_version": 1,
            "texts": {"from": str(data) if data else "built-in", **counts},
            "results": [result.as_record() for result in results],
        },
    )


def write_listing(folder: Path, exports: list[Export]) -> Path:
    """`exports.json`: what there is, and which one to serve. fp32 ONNX is the default: every machine computes it."""
    entries: dict[str, Any] = {
        item.name: {
            "path": _shown(item.folder, folder),
            "format": item.format,
            "dtype": item.dtype,
            "bytes": item.size,
            "parity": item.parity_record(),
        }
        for item in exports
    }
    return write_json(folder / "exports.json", {"schema_version": 1, "default": exports[0].name, "exports": entries})


def _shown(path: Path, folder: Path) -> str:
    """Relative inside the stage's folder, so that a moved run stays true; else absolute."""
    return str(path.relative_to(folder) if path.is_relative_to(folder) else path.resolve())


def headline(exports: list[Export], first: Parity, data: Path | None) -> list[tuple[str, str]]:
    """`first`: the parity of the fp32 model."""
    origin = "of the test set" if data else "built in"
    return [
        *(row for item in exports for row in item.rows()),
        (f"{first.unit} compared", f"{first.compared} {origin}, {first.shortest}–{first.longest} tokens"),
    ]
