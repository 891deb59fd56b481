"""`eval_results.json` and the per-question scores beside it. Free of torch: reports read it too.

Layout of the file::

    {"base": {"NDCG": {"NDCG@10": 0.51, …}, "MAP": …, "Recall": …, "Precision": {"P@1": …}, "MRR": …},
     "finetuned": …, "bm25": …, "nim": …, …,       the main test set, by system (`SYSTEMS`)
     "test_sets": {NAME: {"base": …, …}},           every other one
     "comparisons": [{"test_set", "metric", "a", "b", "delta", "ci95", "p", "verdict", "queries", …}],
     "_metadata": {…, "measurements": {NAME: {SYSTEM: where it came from}}}}
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pipeline.errors import PipelineError
from pipeline.run.files import read_json, read_jsonl, write_json, write_jsonl
from pipeline.run.snapshot import sha256_of

FILE_NAME = "eval_results.json"
SYSTEMS = ("bm25", "base_retriever", "retriever", "base", "finetuned", "hybrid", "reranked", "nim")
"""What can be measured in either family, in the order in which it is measured and shown."""
VARIANT = "@"
"""Between a system and another form of its vectors (`finetuned@128`, `finetuned@int8`) or a service (`nim@gpu7`)."""

Metrics = dict[str, dict[str, float]]
"""{"NDCG": {"NDCG@10": value}, "MAP": …, "Recall": …, "Precision": {"P@1": …}, "MRR": …}, means over the questions."""
QueryScores = dict[str, dict[str, float]]
"""Question id -> {"NDCG@10": value, …}."""


@dataclass(frozen=True)
class Facts:
    """What using a system showed.

    Attributes:
        ms_per_query: milliseconds from the question to its ranking, the stages before it included; the corpus is read.
        size_mb: the weights in memory, in MB of 10**6 bytes; None where they are not here.
        vector_bytes: what one passage takes in an index; None where there are no vectors.
        texts, cut: inputs read (passages, or pairs of a reranker), and how many were longer than `max_length` tokens.
        note: what one must know before believing the numbers.
    """

    ms_per_query: float | None = None
    size_mb: float | None = None
    vector_bytes: int | None = None
    texts: int | None = None
    cut: int | None = None
    max_length: int | None = None
    note: str | None = None


@dataclass
class Provenance:
    """Where one measurement came from.

    `fingerprint` changes when model, contract, number type, test set or metrics change. `scores` is the file of
    per-question scores, relative to the results; its hash ties the two together. `facts` are what the measuring showed
    beside the ranking.
    """

    fingerprint: str
    model: str
    content: str
    contract: str | None
    dtype: str | None
    measured: str
    seconds: float
    scores: str
    scores_sha256: str
    facts: Facts = field(default_factory=Facts)

    @classmethod
    def from_json(cls, item: dict[str, Any]) -> Provenance:
        return cls(**item | {"facts": Facts(**item.get("facts", {}))})


@dataclass
class EvalResults:
    """Every measurement of one run directory: test set -> system -> metrics."""

    main: str
    measurements: dict[str, dict[str, Metrics]] = field(default_factory=dict)
    provenance: dict[str, dict[str, Provenance]] = field(default_factory=dict)
    comparisons: list[dict[str, Any]] = field(default_factory=list)
    metadata: dict[str, Any] = field(default_factory=dict)

    def put(self, test_set: str, system: str, metrics: Metrics, provenance: Provenance) -> None:
        self.measurements.setdefault(test_set, {})[system] = metrics
        self.provenance.setdefault(test_set, {})[system] = provenance

    def systems(self, test_set: str) -> list[str]:
        """The systems measured on a test set, in the order in which they are shown."""
        return in_order(self.measurements.get(test_set, {}))

    def value(self, test_set: str, system: str, metric: str) -> float:
        """One number, by its name ("NDCG@10")."""
        return next(group[metric] for group in self.measurements[test_set][system].values() if metric in group)

    def save(self, folder: Path) -> Path:
        document: dict[str, Any] = dict(self.measurements.get(self.main, {}))
        document["test_sets"] = {name: item for name, item in self.measurements.items() if name != self.main}
        document["comparisons"] = self.comparisons
        document["_metadata"] = {
            "schema_version": 1,
            "main_test_set": self.main,
            **self.metadata,
            "measurements": {
                test_set: {system: asdict(item) for system, item in systems.items()}
                for test_set, systems in self.provenance.items()
            },
        }
        return write_json(folder / FILE_NAME, document)

    @classmethod
    def load(cls, folder: Path) -> EvalResults | None:
        """The results kept in `folder`, or None. Measurements of unknown origin are left out.

        Raises:
            PipelineError: the file is not the JSON it should be.
        """
        path = folder / FILE_NAME
        if not path.is_file():
            return None
        document = read_json(path)
        try:
            metadata = dict(document["_metadata"])
            results = cls(metadata.pop("main_test_set"), comparisons=document["comparisons"])
            metadata.pop("schema_version")
            by_set = {results.main: document, **document["test_sets"]}
            for test_set, systems in metadata.pop("measurements").items():
                for system, item in systems.items():
                    results.put(test_set, system, by_set[test_set][system], Provenance.from_json(item))
        except (KeyError, TypeError, AttributeError) as error:
            raise PipelineError(
                f"{path} is not a result file of this version ({error!r})", fix="move it away and run eval again"
            ) from error
        results.metadata = metadata
        return results


def in_order(systems: Iterable[str]) -> list[str]:
    """Systems as they are shown, unknown ones left out; variants follow their system, in the order given."""
    named = [(name.partition(VARIANT), name) for name in systems]
    known = [(SYSTEMS.index(system), mark, name) for (system, mark, _), name in named if system in SYSTEMS]
    return [name for *_, name in sorted(known, key=lambda item: item[:2])]


def root_of(system: str) -> str:
    """The one of `SYSTEMS` that a system is a kind of: `finetuned@128` -> `finetuned`, `nim@gpu7` -> `nim`."""
    return system.partition(VARIANT)[0]


def is_served(system: str) -> bool:
    """`nim`, `nim@gpu7`: measured over HTTP."""
    return root_of(system) == "nim"


def write_query_scores(path: Path, scores: QueryScores, ranking: dict[str, list[tuple[str, float]]]) -> str:
    """One line per question: its scores and the first passages of its ranking. Returns the file's sha256."""
    write_jsonl(
        path,
        (
            {
                "query_id": query,
                "scores": {name: round(value, 6) for name, value in values.items()},
                "top": [[passage, round(score, 6)] for passage, score in ranking.get(query, [])],
            }
            for query, values in scores.items()
        ),
    )
    return sha256_of(path)


def read_query_scores(path: Path) -> QueryScores:
    return {row["query_id"]: row["scores"] for _, row in read_jsonl(path)}


def metric_names(metrics: Metrics, groups: Iterable[str]) -> list[str]:
    """The names in these groups, in file order: ("NDCG", "Recall") -> ["NDCG@1", …, "Recall@100"]."""
    return [name for group in groups for name in metrics.get(group, {})]
