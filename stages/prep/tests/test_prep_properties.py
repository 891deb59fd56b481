"""Promises of the whole stage on made-up collections full of traps. Vectors come from words, not from a model."""

from __future__ import annotations

import hashlib
import json
import random
from functools import cache
from itertools import combinations, pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from pipeline_prep.duplicates import jaccard, question_shingles, shingles
from pipeline_prep.encoding import Model
from pipeline_prep.main import main

from pipeline.config import resolve
from pipeline.errors import PipelineError
from pipeline.records.beir import read_beir
from pipeline.records.training import TrainingFile, TrainingRow
from pipeline.run.stage import execute

FILES = (
    "train.json",
    "val.json",
    "train_mined.automodel.json",
    "train_mined.automodel_unrolled.json",
    "eval_beir/corpus.jsonl",
    "eval_beir/queries.jsonl",
    "eval_beir/qrels/test.tsv",
    "mining_examples.md",
)
DIMENSION = 24


class WordEncoder:
    """A text is the sum of its words' vectors: near-duplicates are near, and other texts on either side of zero."""

    def __init__(self, contract) -> None:
        self.contract = contract.with_(dimension=DIMENSION, tokenizer_hash="words", dtype="float32")
        self.model = SimpleNamespace(config=SimpleNamespace())

    def tokenize(self, texts, kind):
        return [list(text.encode()) for text in texts]

    def encode_tokens(self, tokens, kind, *, batch_tokens, batch_texts, on_batch):
        on_batch(len(tokens))
        return np.array([text_vector(bytes(item).decode()) for item in tokens], np.float32).reshape(-1, DIMENSION)


@cache
def word_vector(word: str) -> np.ndarray:
    seed = int.from_bytes(hashlib.sha256(word.encode()).digest()[:8], "little")
    return np.random.default_rng(seed).normal(size=DIMENSION)


@cache
def text_vector(text: str) -> np.ndarray:
    total = np.sum([word_vector(word) for word in text.lower().split()], axis=0)
    return (total / np.linalg.norm(total)).astype(np.float32)


class Traps:
    """Records in which everything that leaks is planted on purpose."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.words = [f"{a}{b}{c}" for a in ("ka", "lo", "mi", "ru") for b in ("ten", "sar", "vol") for c in "aeiou"]
        self.alike: list[tuple[str, str]] = []
        """Names of documents that are nearly the same."""

    def sentence(self, count: int) -> str:
        return " ".join(self.random.choice(self.words) for _ in range(count))

    def one_word_changed(self, text: str) -> str:
        words = text.split()
        words[self.random.randrange(len(words))] = "changed"
        return " ".join(words)

    def records(self) -> list[dict]:
        documents = [(f"doc{n}.txt", [self.sentence(40) for _ in range(self.random.randint(1, 3))]) for n in range(18)]
        for n, (name, chunks) in enumerate(self.random.sample(documents, 4)):
            kind = n % 2
            if kind:  # a passage that stands in two documents
                documents.append((f"shares{n}.txt", [self.sentence(40), chunks[0]]))
            else:  # nearly the same document: no passage is equal, but one word in eighty differs
                longer = [self.sentence(80) for _ in range(3)]
                documents[documents.index((name, chunks))] = (name, longer)
                copy = [self.one_word_changed(text) for text in longer]
                documents.append((f"alike{n}.txt", copy))
                self.alike.append((name, f"alike{n}.txt"))
        asked: list[str] = []
        records = [self.record(name, chunks, asked) for name, chunks in documents]
        for _ in range(3):  # an answer stands in a passage of another document
            one, other = self.random.sample(records, 2)
            pair, chunk = self.random.choice(one["deduplicated_qa_pairs"]), self.random.choice(other["chunks"])
            pair["answer"] = " ".join(chunk["text"].split()[5:12]).upper()
        bundle = records.pop()
        records[0]["file_name"] = [*records[0]["file_name"], *bundle["file_name"]]
        for chunk in bundle["chunks"]:
            number = len(records[0]["chunks"]) + 1
            records[0]["chunks"].append({"chunk_id": number, "text": chunk["text"], "doc_id": bundle["file_name"][0]})
        return records

    def record(self, name: str, chunks: list[str], asked: list[str]) -> dict:
        pairs, scores = [], []
        for _ in range(self.random.randint(1, 4)):
            segments = self.random.sample(range(1, len(chunks) + 1), self.random.randint(1, len(chunks)))
            pairs.append({"question": self.question(asked), "answer": self.sentence(6), "segment_ids": segments,
                          "query_type": self.random.choice(["contextual", "factual"])})  # fmt: skip
            scores.append({"overall": {"score": self.random.choice([9, 9, 9, 9, 3, None])}})
        return {
            "file_name": [name], "chunks": [{"chunk_id": n, "text": text} for n, text in enumerate(chunks, 1)],
            "deduplicated_qa_pairs": pairs, "qa_evaluations": {"evaluations": scores[: self.random.randint(1, 9)]},
        }  # fmt: skip

    def question(self, asked: list[str]) -> str:
        """A new one, or one of another record: the same, spelled otherwise, or nearly the same."""
        old = self.random.choice(asked) if asked and self.random.random() < 0.25 else None
        forms = [lambda: old, lambda: f"  {old.upper()} ??", lambda: f"{old} now"]
        text = self.random.choice(forms)() if old else f"What {self.sentence(14)}?"
        asked.append(text)
        return text


def prepare(records, folder: Path, *overrides: str) -> Path:
    folder.mkdir(parents=True)
    (folder / "sdg.json").write_text(json.dumps(records), encoding="utf-8")
    resolved = resolve(
        "embed", "prep", "default",
        [f"run_dir={folder}", f"sdg_input_path={folder / 'sdg.json'}", "device=cpu", "base_model=made/up",
         "query_prefix=", "passage_prefix=", "train_ratio=0.6", "val_ratio=0.2", "test_ratio=0.2", *overrides],
    )  # fmt: skip
    assert execute(resolved, main) is None
    return Path(resolved.config.output_dir)


KNOBS = st.fixed_dictionaries(
    {
        "seed": st.integers(0, 99),
        "hard_negatives_to_mine": st.sampled_from([1, 4, 30]),
        "hard_neg_margin": st.sampled_from(["null", "0.95", "1.0", "0.5"]),
        "max_pos_docs": st.integers(1, 3),
        "bm25_share": st.sampled_from([0, 0, 0.5]),
        "fill_short_rows": st.sampled_from(["false", "true"]),
        "excess_positives": st.sampled_from(["truncate", "drop"]),
        "round_trip_top_k": st.sampled_from(["null", 20]),
        "mining_batch_size": st.sampled_from([3, 128]),
        "corpus_chunk_size": st.sampled_from([7, 50000]),
    }
)


@pytest.fixture(scope="module", autouse=True)
def no_model():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Model, "load", lambda self: WordEncoder(self.contract))
        yield


@given(seed=st.integers(0, 1_000_000), knobs=KNOBS)
@settings(
    max_examples=12, deadline=None, derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip
def test_nothing_leaks_and_no_negative_is_an_answer(tmp_path_factory, seed, knobs):
    traps = Traps(seed)
    records = traps.records()
    overrides = [f"{name}={value}" for name, value in knobs.items()]
    root = tmp_path_factory.mktemp("run")
    try:
        made = prepare(records, root / "first", *overrides)
    except PipelineError as error:
        too_few = ("has no question left", "more than max_pos_docs", "finds no training question")
        assert any(text in error.message for text in too_few)
        assume(False)
    check_sides(made, traps.alike)
    check_negatives(made, knobs)
    check_funnel(made)

    traps.random.shuffle(records)
    again = prepare(records, root / "again", *overrides)
    for name in FILES:
        assert (again / name).read_bytes() == (made / name).read_bytes(), name


def rows_of(made: Path, name: str) -> list[TrainingRow]:
    return TrainingFile.load(made / name).rows


def check_sides(made: Path, alike: list[tuple[str, str]]) -> None:
    test = read_beir(made / "eval_beir")
    asked = {side: {row.question for row in rows_of(made, f"{side}.json")} for side in ("train", "val")}
    asked["test"] = set(test.queries.values())
    documents = {
        side: {name for row in rows_of(made, f"{side}.json") for name in row.extra["metadata"]["file_name"]}
        for side in ("train", "val")
    }
    documents["test"] = {name for held in test.metadata.values() for name in held["file_name"]}
    texts = {name: [item.text for item in test.corpus.values() if name in item.documents]
             for names in documents.values() for name in names}  # fmt: skip
    for one, other in combinations(documents, 2):
        assert not documents[one] & documents[other]
        for name, twin in alike:
            assert not ({name, twin} & documents[one] and {name, twin} & documents[other])
        for name in documents[one]:
            for twin in documents[other]:
                assert not set(texts[name]) & set(texts[twin])
                assert jaccard(*(shingles("\n".join(texts[item])) for item in (name, twin))) < 0.8
        for text in asked[one]:
            for twin in asked[other]:
                assert plain(text) != plain(twin)
                assert jaccard(question_shingles(text), question_shingles(twin)) < 0.8


def plain(text: str) -> str:
    return " ".join(text.lower().replace("?", " ").split())


def check_negatives(made: Path, knobs: dict) -> None:
    test = read_beir(made / "eval_beir")
    corpus = test.corpus
    answers = {passage for judged in test.qrels.values() for passage in judged}
    unrolled = rows_of(made, FILES[3])
    siblings: dict[str, set[str]] = {}
    for row in unrolled:
        siblings.setdefault(row.extra["original_question_id"], set()).update(row.positives)
    for row in [*unrolled, *rows_of(made, FILES[2]), *rows_of(made, "val.json")]:
        known = row.known_positives | siblings.get(row.extra.get("original_question_id"), set())
        assert len(row.positives) <= knobs["max_pos_docs"] and not known & answers
        assert len(row.negatives) == len(set(row.negatives)) <= knobs["hard_negatives_to_mine"]
        lowest = min(float(text_vector(row.question) @ text_vector(corpus[key].text)) for key in siblings.get(
            row.extra.get("original_question_id"), row.positives))  # fmt: skip
        for key in row.negatives:
            score = row.negative_scores[key]
            assert key not in known and key not in answers and np.isfinite(score)
            assert score == pytest.approx(float(text_vector(row.question) @ text_vector(corpus[key].text)), abs=2e-3)
            if knobs["hard_neg_margin"] != "null":
                assert score <= lowest - (1 - float(knobs["hard_neg_margin"])) * abs(lowest) + 2e-3
            text = plain(corpus[key].text)
            assert plain(row.extra["metadata"]["answer"]) not in text
            for other in [*known, *answers]:
                assert jaccard(shingles(corpus[other].text), shingles(corpus[key].text)) < 0.8


def check_funnel(made: Path) -> None:
    steps = json.loads((made / "mining_report.json").read_text())["funnel"]
    lines = [json.loads(line) for line in (made / "rejected.jsonl").read_text().splitlines()]
    assert sum(sum(step["lost"].values()) for step in steps) == len(lines)
    by_name = {step["step"]: step for step in steps}
    order = [by_name[name] for name in ("read", "judged", "kept", "split")]
    for before, after in pairwise(order):
        assert after["left"] == before["left"] - sum(after["lost"].values())
    sizes = [len(rows_of(made, name)) for name in ("train.json", "val.json")]
    assert by_name["mined"]["left"] == sum(sizes)
    lost_later = sum(sum(step["lost"].values()) for step in steps[steps.index(by_name["split"]) + 1 :])
    tested = len(read_beir(made / "eval_beir").queries)
    assert by_name["split"]["left"] == sum(sizes) + tested + lost_later


@pytest.mark.parametrize("shape", ["rank window", "random draw", "floor and ceiling"])
def test_other_rules_on_negatives_hold(tmp_path, shape):
    more = {
        "rank window": ("negative_rank_min=3", "negative_rank_max=9", "hard_neg_margin=null"),
        "random draw": ("negative_rank_max=10", "negative_sampling=random", "hard_neg_margin=null"),
        "floor and ceiling": ("negative_min_score=-0.2", "negative_max_score=0.3", "hard_neg_margin=null"),
    }[shape]
    made = prepare(Traps(11).records(), tmp_path / "run", "hard_negatives_to_mine=5", *more)
    rows = rows_of(made, FILES[2])
    corpus = read_beir(made / "eval_beir").corpus
    hidden = {passage for judged in read_beir(made / "eval_beir").qrels.values() for passage in judged}
    assert sum(len(row.negatives) for row in rows) > len(rows)
    for row in rows:
        scores = {key: float(text_vector(row.question) @ text_vector(item.text)) for key, item in corpus.items()}
        allowed = [key for key in scores if key not in row.known_positives]
        ranked = sorted(allowed, key=lambda key: -scores[key])
        for key in row.negatives:
            if shape == "floor and ceiling":
                assert -0.2 - 2e-3 <= scores[key] <= 0.3 + 2e-3
            else:
                # Passages that answer test questions are taken out before ranks are counted.
                rank = [item for item in ranked if item not in hidden].index(key) + 1
                assert rank <= 10 and (shape == "random draw" or rank >= 2)
