"""`pipeline data …` as a person meets it."""

import os
import subprocess
import sys
from pathlib import Path

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
