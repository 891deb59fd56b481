"""What was published: `exports.json`, `parity_report.json` and the rows of the summary."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import PipelineError
from pipeline.retrieval.onnx_session import LISTING_FILE, METADATA_FILE
from pipeline.run.files import read_json, write_json
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


class Listing:
    """`exports.json`: what there is, and which one to serve. fp32 ONNX is the default: every machine computes it.

    Forms that an earlier export made of the very same fp32 model stay listed. Those of another model do not, and so
    deploy refuses them.
    """

    def __init__(self, folder: Path, targets: list[Path]) -> None:
        """Look at the earlier export. `folder`: the stage's; `targets`: folders to be written, fp32 first."""
        self.path, self._targets = folder / LISTING_FILE, targets
        self._earlier, default = _read_listing(self.path)
        self._model = _identity(self._place(self._earlier[default])) if default in self._earlier else None

    def withdraw(self) -> None:
        """Before the fp32 model is replaced: until `write` nothing is said of what there is."""
        self.path.unlink(missing_ok=True)

    def write(self, exports: list[Export]) -> Path:
        entries: dict[str, Any] = {
            item.name: {
                "path": _shown(item.folder, self.path.parent),
                "format": item.format,
                "dtype": item.dtype,
                "bytes": item.size,
                "parity": item.parity_record(),
            }
            for item in exports
        }
        return write_json(
            self.path, {"schema_version": 1, "default": exports[0].name, "exports": self._kept() | entries}
        )

    def left_over(self) -> list[Path]:
        """Folders of another model that the earlier export listed; for a warning, once the fp32 model is there."""
        return [] if self._same() else [self._place(entry) for entry in self._others().values()]

    def _kept(self) -> dict[str, Any]:
        return self._others() if self._same() else {}

    def _same(self) -> bool:
        return self._model is not None and self._model == _identity(self._targets[0])

    def _others(self) -> dict[str, Any]:
        """What the earlier export listed, is still there, and is not written now."""
        targets = {target.resolve() for target in self._targets}
        return {
            name: entry
            for name, entry in self._earlier.items()
            if self._place(entry) not in targets and (self._place(entry) / METADATA_FILE).is_file()
        }

    def _place(self, entry: dict[str, Any]) -> Path:
        return (self.path.parent / str(entry.get("path"))).resolve()


def _read_listing(path: Path) -> tuple[dict[str, dict[str, Any]], str]:
    """Entries by name, and the name of the default."""
    try:
        found = read_json(path)
        return {name: entry for name, entry in found["exports"].items() if isinstance(entry, dict)}, found["default"]
    except (PipelineError, KeyError, TypeError, AttributeError):  # none, or damaged: nothing is known of before
        return {}, ""


def _identity(folder: Path) -> tuple[Any, Any] | None:
    """What a form's model and contract are; None without a form."""
    try:
        metadata = read_json(folder / METADATA_FILE)
        return metadata["files"], metadata["contract_digest"]
    except (PipelineError, KeyError, TypeError):
        return None


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
