"""Vectors cut short and with fewer bits: what they find, what they cost, and that nothing is encoded twice for them."""

from __future__ import annotations

import json

import numpy as np
import pytest
from pipeline_eval.families import EMBED
from pipeline_eval.main import main
from pipeline_eval.report import systems_table
from pipeline_eval.vector_forms import Binary, Cut, Formed, Int8, form_named
from rich.console import Console

from pipeline.config import resolve
from pipeline.errors import PipelineError
from pipeline.records.results import FILE_NAME, EvalResults, in_order
from pipeline.retrieval.encoder import BiEncoder
from pipeline.retrieval.passages import ArrayPassages
from pipeline.retrieval.search import top_k
from pipeline.run.stage import execute


@pytest.fixture
def vectors():
    """Questions [40, 64] and passages [600, 64] of unit length whose dimensions count less and less."""
    draw = np.random.default_rng(0)
    weights = 0.97 ** np.arange(64)
    found = [(draw.normal(size=(rows, 64)) * weights).astype(np.float32) for rows in (40, 600)]
    return [item / np.linalg.norm(item, axis=1, keepdims=True) for item in found]


def found(form, vectors, k=10):
    """Indices [Q, k] and scores of what the form finds; blocks that do not divide the corpus."""
    queries, passages = vectors[0], ArrayPassages(vectors[1])
    form = form.fitted(passages)
    scores, places = top_k(form.queries(queries), Formed(passages, form), k, passage_block=77)
    return places, scores


def shared(first, second):
    """Mean share of a question's passages that are in both."""
    return np.mean([len(set(a) & set(b)) / len(a) for a, b in zip(first, second, strict=True)])


def test_all_dimensions_are_the_full_vectors(vectors):
    places, scores = found(Cut(64, True), vectors)
    exact_scores, exact = top_k(vectors[0], vectors[1], 10)
    assert (places == exact).all() and (scores == exact_scores).all()


def test_cut_vectors_are_the_first_numbers_with_unit_length(vectors):
    queries, passages = (item[:, :16] / np.linalg.norm(item[:, :16], axis=1, keepdims=True) for item in vectors)
    places, scores = found(Cut(16, True), vectors)
    assert scores == pytest.approx(np.sort(queries @ passages.T, axis=1)[:, :-11:-1], abs=1e-5)
    plain, _ = found(Cut(16, False), vectors)
    assert (plain == np.argsort(-(vectors[0][:, :16] @ vectors[1][:, :16].T), axis=1)[:, :10]).all()
    assert (plain != places).any()  # length counts where the model does not normalise


def test_int8_is_close_and_binary_loses(vectors):
    exact_scores, exact = top_k(vectors[0], vectors[1], 10)
    eight, eight_scores = found(Int8(), vectors)
    signs, _ = found(Binary(), vectors)
    assert eight_scores == pytest.approx(exact_scores, abs=0.01)
    assert shared(eight, exact) > 0.95 > 0.8 > shared(signs, exact) > 0.2


def test_int8_scores_are_sums_of_integer_products(vectors):
    form = Int8().fitted(ArrayPassages(vectors[1]))
    passages, queries = form.passages(vectors[1]), form.queries(vectors[0])
    assert (np.abs(passages).max(0) == 127).all() and (passages == passages.astype(np.int8)).all()
    step = np.abs(queries).max(1, keepdims=True) / 127
    assert np.abs(queries / step - np.rint(queries / step)).max() < 1e-3


def test_binary_scores_are_the_questions_against_signs(vectors):
    places, scores = found(Binary(), vectors)
    wanted = vectors[0] @ np.where(vectors[1] > 0, 1.0, -1.0).T
    assert scores == pytest.approx(np.take_along_axis(wanted, places, 1), abs=1e-5)
    assert scores[:, 0] == pytest.approx(wanted.max(1), abs=1e-5)


def test_a_dimension_that_is_always_zero_gives_numbers(vectors):
    zeros = np.zeros((3, 4), np.float32)
    for form in (Cut(2, True), Int8(), Binary()):
        fitted = form.fitted(ArrayPassages(zeros))
        assert np.isfinite(fitted.passages(zeros)).all() and np.isfinite(fitted.queries(zeros)).all()


@pytest.mark.parametrize(("name", "size"), [("8", 32), ("int8", 384), ("binary", 48)])
def test_what_a_vector_takes(name, size):
    form = form_named(name, True)
    assert (form.name, form.vector_bytes(384)) == (name, size)
    assert form_named("binary", True).vector_bytes(385) == 49


def test_variants_follow_their_system():
    given = ["nim", "finetuned@int8", "base", "unknown", "finetuned@64", "finetuned", "base@64"]
    assert in_order(given) == ["base", "base@64", "finetuned", "finetuned@int8", "finetuned@64", "nim"]


@pytest.fixture
def evaluate(run_dir, tiny_model):
    """Run the stage on a tiny base model (32 dimensions); returns the saved results."""

    def run(*overrides):
        asked = [
            f"run_dir={run_dir}", f"base_model={tiny_model}", "question_sets={}", "bootstrap_samples=200",
            "precision=fp32", "query_max_length=32", "passage_max_length=32", "k_values=[1, 3]", "eval_bm25=false",
        ]  # fmt: skip
        assert execute(resolve("embed", "eval", "demo", [*asked, *overrides]), main) is None
        return json.loads((run_dir / "stage3_eval" / FILE_NAME).read_text())

    return run


@pytest.fixture
def encoded(monkeypatch):
    """Kind and number of all texts that models are given."""
    seen = []
    original = BiEncoder.encode_tokens

    def encode_tokens(self, tokens, kind="passage", **how):
        seen.append((kind, len(tokens)))
        return original(self, tokens, kind, **how)

    monkeypatch.setattr(BiEncoder, "encode_tokens", encode_tokens)
    return seen


FORMS = ("dims=[32, 8]", "quantized=[int8, binary]")


def test_forms_are_systems_made_of_one_encoding(evaluate, encoded, run_dir, capsys):
    document = evaluate(*FORMS)
    assert sorted(encoded) == [("passage", 6), ("query", 6)]
    names = ["base", "base@32", "base@8", "base@int8", "base@binary"]
    assert [name for name in document if name.startswith("base")] == names
    assert document["base@32"] == document["base"]
    facts = {name: item["facts"] for name, item in document["_metadata"]["measurements"]["synthetic"].items()}
    assert [facts[name]["vector_bytes"] for name in names] == [128, 128, 32, 32, 4]
    assert facts["base"]["ms_per_query"] > 0 and facts["base@int8"]["ms_per_query"] is None
    assert [item["b"] for item in document["comparisons"] if item["metric"] == "NDCG@3"] == names[1:]
    assert all(item["a"] == "base" for item in document["comparisons"])
    assert "base@32 is not clearly different from base on synthetic" in capsys.readouterr().out

    family, results = EMBED.with_more(names), EvalResults.load(run_dir / "stage3_eval")
    table = systems_table(family, results, "synthetic", "", 6)
    console = Console(width=140)
    with console.capture() as shown:
        console.print(table)
    lines = [line.replace("│", " ").split() for line in shown.get().splitlines()]
    assert [line[-1] for line in lines if line and line[0] in names] == ["128", "128", "32", "32", "4"]


def test_forms_asked_for_later_load_the_model_once_and_encode_no_passage(evaluate, encoded, monkeypatch):
    before = evaluate()
    loads = []
    load = BiEncoder.load.__func__
    monkeypatch.setattr(BiEncoder, "load", classmethod(lambda *args, **how: loads.append(1) or load(*args, **how)))
    encoded.clear()
    document = evaluate(*FORMS)
    assert (encoded, len(loads)) == ([("query", 6)], 1)
    assert document["base"] == before["base"] == document["base@32"]
    measured = document["_metadata"]["measurements"]["synthetic"]

    again = evaluate(*FORMS, "eval_base=true")
    assert again["_metadata"]["measurements"]["synthetic"] == measured and len(loads) == 1  # all of it still holds
    assert "base@8" not in evaluate()


def test_forms_stay_with_the_model_they_were_made_of(evaluate, encoded, run_dir):
    before = evaluate(*FORMS)
    encoded.clear()
    document = evaluate(*FORMS, "eval_base=false", "eval_bm25=true")
    assert document["base@8"] == before["base@8"] and "bm25" in document and not encoded
    log = (run_dir / "stage3_eval" / "logs" / "latest.log").read_text()
    assert "dims and quantized are of base, which eval_base=false leaves out" in log


def test_a_size_beyond_the_models_is_refused_before_any_work(evaluate, encoded):
    with pytest.raises(PipelineError, match=r"dims names 33, but the vectors of .* have 32 dimensions") as caught:
        evaluate("dims=[32, 33]")
    assert caught.value.fix == "name sizes up to 32" and not encoded


@pytest.mark.parametrize(
    ("asked", "said"),
    [("dims=[0]", "every size must be > 0"), ("dims=[8, 8]", "names 8 twice"), ("quantized=[int4]", "int8")],
)
def test_forms_that_cannot_be_are_configuration_errors(asked, said):
    with pytest.raises(PipelineError, match=said):
        resolve("embed", "eval", "demo", [asked])
