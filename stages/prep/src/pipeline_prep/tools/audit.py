"""`pipeline data audit`: what is wrong with a training file, as a JSON report, and a copy without bad negatives."""

from __future__ import annotations

import json
import logging
import math
import sys
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipeline.errors import PipelineError
from pipeline.records.sources.check import as_list
from pipeline.schemas.mining import MiningKeys
from pipeline_prep.tools.audit_context import Answers, Passages
from pipeline_prep.tools.audit_rows import ISSUES, Checks, Finding
from pipeline_prep.tools.judgements import Judgements
from pipeline_prep.tools.outputs import check_output
from pipeline_prep.tools.training_json import Document

log = logging.getLogger("pipeline")


def command(
    file: str,
    output: str | None,
    drop_invalid_negatives: bool,
    max_findings: int,
    min_negatives: int,
    allow_findings: bool,
    near_duplicates: bool,
    qrels: str | None,
    overwrite: bool,
) -> int:
    """Print the report; 1 if findings are left (after cleaning), unless `allow_findings`."""
    if (output is not None) != drop_invalid_negatives:
        raise PipelineError(
            "--output and --drop-invalid-negatives belong together: the cleaned copy needs a place",
            fix="give both, or neither for a report alone",
        )
    source = Path(file)
    target = check_output(Path(output), [source], overwrite) if output else None
    threshold = MiningKeys.near_duplicate_threshold if near_duplicates else None
    found = audit(Document.load(source), min_negatives, threshold, Judgements.read(Path(qrels)) if qrels else None)
    dropped = len(found.bad) if target else 0
    report, left = _report(found, max_findings, dropped), found.findings
    if target:
        cleaned = found.cleaned()
        cleaned.document.save(target)
        log.info("written: %s, without %d of %d negatives", target, dropped, found.negatives)
        left = cleaned.findings
        remaining = _report(cleaned, max_findings, dropped)
        report |= {f"remaining_{name}": value for name, value in remaining.items()}
    print(json.dumps(report, indent=2, allow_nan=False))
    sys.stdout.flush()
    log.info("%s: %s", source, _in_words(found))
    return int(bool(left) and not allow_findings)


@dataclass(frozen=True)
class Audit:
    """The findings of one document, row after row."""

    document: Document
    findings: list[Finding]

    @property
    def bad(self) -> set[tuple[int, int]]:
        """(row, place in `neg_doc`) of every negative with a finding."""
        return {(item.row, item.negative) for item in self.findings if item.negative is not None}

    @property
    def negatives(self) -> int:
        return sum(len(as_list(row["neg_doc"])) for row in self.document.rows)

    def cleaned(self) -> Audit:
        """The document without bad negatives, and the findings that cleaning cannot mend.

        Strict JSON has no NaN: a positive's non-finite score becomes null in the copy; the finding stays.
        """
        bad, rows = self.bad, []
        endless = {item.row for item in self.findings if item.issue == "non_finite_positive_score"}
        for number, row in enumerate(self.document.rows):
            kept = [item for place, item in enumerate(as_list(row["neg_doc"])) if (number, place) not in bad]
            rows.append({**row, "neg_doc": kept})
            if number in endless:
                rows[-1]["pos_doc"] = [_without_endless_score(item) for item in as_list(row["pos_doc"])]
        left = [item for item in self.findings if item.negative is None]
        return Audit(replace(self.document, rows=rows), left)


def audit(
    document: Document, min_negatives: int = 0, near_duplicates: float | None = None, judged: Judgements | None = None
) -> Audit:
    """Look at every row of a training file.

    Args:
        min_negatives: a row with fewer good negatives is a finding.
        near_duplicates: Jaccard similarity from which a negative counts as a copy of a positive; None: off.
        judged: judgements to compare with.

    Raises:
        PipelineError: the file or its corpus cannot be read, or a row names passages by neither id nor object.
    """
    passages = Passages(document)
    if judged and judged.passages() and not passages.has_any(judged.passages()):
        log.warning("none of the judged passages is in the corpus: the ids differ, so comparing them finds nothing")
    checks = Checks(document, passages, Answers(document), min_negatives, near_duplicates, judged)
    return Audit(document, [item for row in range(len(document.rows)) for item in checks.row(row)])


def _without_endless_score(item: Any) -> Any:
    score = item.get("score") if isinstance(item, dict) else None
    return {**item, "score": None} if isinstance(score, float) and not math.isfinite(score) else item


def _report(found: Audit, most: int, dropped: int) -> dict[str, Any]:
    counts = Counter(item.issue for item in found.findings)
    summary = {
        "records": len(found.document.rows),
        "negatives": found.negatives,
        "rows_with_findings": len({item.row for item in found.findings}),
        **{name: counts[name] for name in ISSUES if name != "too_few_negatives"},
        "rows_with_too_few_negatives": counts["too_few_negatives"],
        "dropped_negatives": dropped,
        "total_findings": len(found.findings),
    }
    return {"summary": summary, "findings": [item.to_json(found.document) for item in found.findings[:most]]}


def _in_words(found: Audit) -> str:
    counts = Counter(item.issue for item in found.findings).most_common()
    text = ", ".join(f"{name} {count:,}" for name, count in counts) or "no findings"
    return f"{len(found.document.rows):,} rows, {found.negatives:,} negatives: {text}"
