"""`pipeline data …` as a person meets it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

FIXTURES = Path(__file__).parents[1] / "config" / "fixtures"


def pipeline(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pipeline", *arguments],
        capture_output=True, text=True, cwd=cwd, env={**os.environ, "COLUMNS": "200"},
    )  # fmt: skip


def test_the_written_file_configures_a_training(tmp_path: Path):
    shown = pipeline(
        "data", "convert-config", str(FIXTURES / "automodel_bi_encoder.yaml"), "--output", "tuned.yaml", cwd=tmp_path
    )
    assert shown.returncode == 0 and shown.stdout == ""
    assert "optimizer.lr" in shown.stderr and "not converted (0)" in shown.stderr
    (tmp_path / "rows.json").write_text("{}")
    dry = pipeline("embed", "finetune", "-c", "tuned.yaml", "--dry-run", "train_data_path=rows.json", cwd=tmp_path)
    assert dry.returncode == 0, dry.stdout + dry.stderr
    assert "5e-06" in dry.stdout
    again = pipeline(
        "data", "convert-config", str(FIXTURES / "automodel_bi_encoder.yaml"), "-o", "tuned.yaml", cwd=tmp_path
    )
    assert again.returncode == 1 and "is there already" in again.stderr


def test_without_an_output_the_yaml_goes_to_stdout_and_the_report_to_stderr(tmp_path: Path):
    shown = pipeline("data", "convert-config", str(FIXTURES / "automodel_cross_encoder.yaml"), cwd=tmp_path)
    assert shown.returncode == 0 and shown.stdout.startswith("# rerank finetune")
    assert "LoRA is not built yet" in shown.stderr and list(tmp_path.iterdir()) == []


def test_a_broken_file_is_one_error_without_a_traceback(tmp_path: Path):
    for name in (str(FIXTURES / "automodel_broken.yaml"), "nowhere.yaml"):
        shown = pipeline("data", "convert-config", name, cwd=tmp_path)
        assert shown.returncode == 1 and shown.stdout == ""
        assert shown.stderr.startswith("error: ") and name in shown.stderr and "Traceback" not in shown.stderr


@pytest.mark.parametrize("command", ["audit", "unroll", "materialize", "convert"])
def test_help_and_bad_options_need_no_environment_and_no_heavy_package(tmp_path: Path, command: str):
    code = (
        "import sys; from pipeline.cli.app import app\n"
        f"try: app(args=['data', {command!r}, '--help'], prog_name='pipeline')\n"
        "finally: print(sorted({'pyarrow', 'numpy', 'torch'} & set(sys.modules)), file=sys.stderr)"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert shown.returncode == 0 and "--overwrite" in shown.stdout and shown.stderr == "[]\n"
    wrong = pipeline("data", command, "--no-such-option", cwd=tmp_path)
    assert wrong.returncode == 2 and "no-such-option" in wrong.stderr


def test_a_tool_gets_its_options_in_the_environment_of_prep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A stand-in for uv shows what would be started; the test below starts the real one."""
    fake = tmp_path / "uv"
    fake.write_text('#!/bin/sh\nprintf "%s\\n" "$UV_PROJECT_ENVIRONMENT" "$@"\nexit 3\n')
    fake.chmod(0o755)
    monkeypatch.setenv("UV", str(fake))
    monkeypatch.setenv("PIPELINE_ENV_DIR", str(tmp_path / "envs"))
    shown = pipeline("data", "convert", "in.jsonl", "out.json", "--to", "corpus-ids", "--corpus-id", "c", cwd=tmp_path)
    assert shown.returncode == 3 and shown.stderr.startswith("Setting up the environment of prep")
    folder, *words = shown.stdout.splitlines()
    assert folder == str(tmp_path / "envs" / "prep")
    assert words[0] == "run" and "--frozen" in words
    assert words[-7:-1] == ["--package", "pipeline-prep", "python", "-m", "pipeline_prep.tools.main", "convert"]
    assert json.loads(words[-1]) == {
        "input": "in.jsonl", "output": "out.json", "to": "corpus-ids", "corpus_id": "c", "split": "train",
        "overwrite": False,
    }  # fmt: skip


@pytest.mark.slow
@pytest.mark.e2e
def test_pairs_become_a_training_file_that_is_audited_and_unrolled(tmp_path: Path):
    rows = [
        {
            "question_id": "q1",
            "query": "Which are hot?",
            "pos_doc": ["Lava.", "Fire."],
            "neg_doc": "Ice.",
        },
        {"question_id": "q2", "query": "What is cold?", "pos_doc": "Ice.", "neg_doc": ["Lava.", "Fire."]},
    ]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    made = pipeline("data", "convert", "pairs.jsonl", "train.json", cwd=tmp_path)
    assert made.returncode == 0 and made.stdout == "" and "2 rows, 3 passages" in made.stderr

    audited = pipeline("data", "audit", "train.json", "--max-findings", "1", cwd=tmp_path)
    report = json.loads(audited.stdout)
    assert audited.returncode == 1 and report["summary"]["missing_negative_score"] == 3
    assert len(report["findings"]) == 1 and report["summary"]["total_findings"] == 6
    allowed = pipeline("data", "audit", "train.json", "--allow-findings", cwd=tmp_path)
    assert allowed.returncode == 0

    assert pipeline("data", "unroll", "train.json", "-o", "one.json", cwd=tmp_path).returncode == 0
    assert [row["question_id"] for row in json.loads((tmp_path / "one.json").read_text())["data"]] == [
        "q1_0", "q1_1", "q2",
    ]  # fmt: skip
    assert pipeline("data", "convert", "one.json", "beir", cwd=tmp_path).returncode == 0
    assert pipeline("data", "materialize", "beir", "made", cwd=tmp_path).returncode == 0
    assert len(json.loads((tmp_path / "made" / "train.json").read_text())["data"]) == 3

    broken = pipeline("data", "audit", "nowhere.json", cwd=tmp_path)
    assert broken.returncode == 1 and broken.stdout == ""
    assert broken.stderr.splitlines()[-1].startswith("error: ") and "Traceback" not in broken.stderr
