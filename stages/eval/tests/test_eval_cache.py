"""The folder of vectors over several runs of the stage."""

from __future__ import annotations

import pytest
from pipeline_eval.main import main

from pipeline.config import resolve
from pipeline.run.stage import execute


@pytest.fixture
def log_of(run_dir, tiny_model):
    """Run the stage on a tiny base model under another prefix; returns its log."""

    def run(prefix, *overrides):
        asked = [
            f"run_dir={run_dir}", f"base_model={tiny_model}", "question_sets={}", "bootstrap_samples=200",
            "precision=fp32", "query_max_length=32", "passage_max_length=32", "eval_bm25=false",
            f"passage_prefix={prefix}",
        ]  # fmt: skip
        execute(resolve("embed", "eval", "demo", [*asked, *overrides]), main)
        return (run_dir / "stage3_eval" / "logs" / "latest.log").read_text()

    return run


def test_what_no_run_needs_any_more_is_deleted_and_counted(log_of, run_dir):
    assert "deleted" not in log_of("a ", "k_values=[1]")
    assert "deleted" not in log_of("b ", "k_values=[1]")  # far below the limit
    log = log_of("b ", "k_values=[2]", "cache_max_gb=0")
    assert "6 of 6 passage vectors are there already" in log
    assert "1 shards of vectors deleted" in log and "cache_max_gb=0)" in log
    assert "there already" not in log_of("a ", "k_values=[3]")
    assert "6 of 6 passage vectors are there already" in log_of("b ", "k_values=[3]")
