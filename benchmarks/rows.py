"""Training rows for benchmarks: the same rows as our training file and as the peer's JSON lines."""

from __future__ import annotations

import json
import random
from dataclasses import asdict, dataclass
from pathlib import Path

from pipeline.errors import PipelineError
from pipeline.records.passages import Passage, passage_id, write_corpus
from pipeline.records.training import TrainingFile, TrainingRow
from pipeline.run.files import read_jsonl, write_jsonl

_QUERY_WORDS = 12
_SHORTEST = 80


@dataclass(frozen=True)
class Row:
    """One training row in plain text. `known` are all passages that answer the query."""

    query: str
    positive: str
    negatives: list[str]
    known: list[str]


def read_texts(folder: Path) -> list[str]:
    """Distinct passages of a BEIR folder, or the paragraphs of a folder of Markdown files."""
    corpus = folder / "corpus.jsonl"
    if corpus.is_file():
        texts = [f"{row.get('title') or ''} {row['text']}".strip() for _, row in read_jsonl(corpus)]
    else:
        files = sorted(folder.rglob("*.md"))
        texts = [part.strip() for path in files for part in path.read_text(encoding="utf-8").split("\n\n")]
        texts = [text for text in texts if len(text) >= _SHORTEST]
    return list(dict.fromkeys(texts))


def shared_rows(texts: list[str], count: int, *, share: float, batch: int, negatives: int, seed: int) -> list[Row]:
    """Rows whose batches hold about `share` distinct passages of all: 1.0 shares none.

    Every row has a positive of its own. Its negatives are drawn from a pool that all rows share, just large enough for
    `share`, or are its own when nothing is to be shared.
    """
    order = random.Random(seed)
    pool_size = max(negatives, round((share * (1 + negatives) - 1) * batch))
    needed = count * (1 + negatives) if share >= 1 else count + pool_size
    if needed > len(texts):
        raise PipelineError(
            f"{count} rows need {needed} passages, there are {len(texts)}", fix="--steps, --batch: fewer"
        )
    chosen = order.sample(texts, needed)
    positives, rest = chosen[:count], chosen[count:]
    rows = []
    for number, positive in enumerate(positives):
        own = rest[number * negatives :][:negatives] if share >= 1 else order.sample(rest, negatives)
        rows.append(Row(" ".join(positive.split()[:_QUERY_WORDS]), positive, own, [positive]))
    return rows


def distinct_share(rows: list[Row], batch: int, seed: int = 0) -> float:
    """Distinct passages of all passages of a batch, in the mean over one shuffled epoch."""
    order = random.Random(seed).sample(rows, len(rows))
    shares = []
    for start in range(0, len(order), batch):
        passages = [text for row in order[start : start + batch] for text in (row.positive, *row.negatives)]
        shares.append(len(set(passages)) / len(passages))
    return sum(shares) / len(shares)


def write_rows(folder: Path, rows: list[Row]) -> tuple[Path, Path]:
    """Write `train.json` with its corpus for us and `rows.jsonl` for the peer; returns both paths."""
    texts = dict.fromkeys(text for row in rows for text in (row.positive, *row.negatives, *row.known))
    write_corpus(folder / "corpus", [Passage(passage_id(text), text) for text in texts], "benchmark")
    ours = [
        TrainingRow(
            f"q{number}", row.query, "benchmark", [passage_id(row.positive)],
            [passage_id(text) for text in row.negatives],
            extra={"known_pos_ids": [passage_id(text) for text in row.known]},
        )
        for number, row in enumerate(rows)
    ]  # fmt: skip
    train = TrainingFile(Path("."), ours).save(folder / "train.json")
    peer = folder / "rows.jsonl"
    write_jsonl(peer, (asdict(row) for row in rows))
    return train, peer


def markdown(rows: list[dict[str, object]]) -> str:
    """A list of equal dicts as a Markdown table."""
    names = list(rows[0])
    lines = [names, ["---"] * len(names), *([str(row[name]) for name in names] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def show(title: str, rows: list[dict[str, object]], facts: dict[str, object], output: Path | None) -> None:
    """Print the Markdown table and the same as JSON (also into `output`)."""
    document = json.dumps({"title": title, **facts, "rows": rows}, indent=1, ensure_ascii=False)
    print(f"\n## {title}\n\n{markdown(rows)}\n\n{document}", flush=True)
    if output:
        output.write_text(document + "\n", encoding="utf-8")
