"""The command line as a person meets it: real processes, real exit codes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.cli.argv import hoist
from pipeline.family import FAMILIES, STAGES
from pipeline.schemas import schema_of
from pipeline.schemas.fields import keys_of


def pipeline(*arguments: str, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pipeline", *arguments],
        capture_output=True, text=True, cwd=cwd, env={**os.environ, "COLUMNS": "200", **environment},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (["-c", "demo", "embed", "sdg"], ["embed", "sdg", "-c", "demo"]),
        (["embed", "--run=X", "sdg", "a=1"], ["embed", "sdg", "a=1", "--run=X"]),
        (["embed", "seed=3", "-d", "prep"], ["embed", "prep", "seed=3", "-d"]),
        (["--help"], ["--help"]),
        (["embed", "--help"], ["embed", "--help"]),
    ],
)
def test_options_and_overrides_may_stand_before_the_subcommand(before, after):
    assert hoist(before) == after


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("stage", STAGES)
def test_help_lists_every_key_with_its_meaning(family, stage):
    shown = pipeline(family, stage, "--help")
    assert shown.returncode == 0
    text = " ".join(shown.stdout.split())
    for name, item in keys_of(schema_of(family, stage)).items():
        assert name in text
        assert item.spec.meaning.split()[0] in text
    assert "default" in text


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("stage", STAGES)
def test_a_dry_run_of_the_default_shows_the_command_and_writes_nothing(family, stage, tmp_path: Path):
    (tmp_path / "data" / "corpus").mkdir(parents=True)
    shown = pipeline(family, stage, "-c", "default", "--dry-run", cwd=tmp_path)
    assert shown.returncode == 0, shown.stdout + shown.stderr
    assert f"--package pipeline-{stage}" in shown.stdout
    assert "UV_PROJECT_ENVIRONMENT=" in shown.stdout
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["corpus", "data"]


def test_a_dry_run_says_what_earlier_stages_make_and_fails_on_a_missing_path_of_the_user(tmp_path: Path):
    made = pipeline("embed", "prep", "-d", cwd=tmp_path)
    assert made.returncode == 0 and "made by sdg" in made.stdout
    missing = pipeline("embed", "prep", "-d", "sdg_input_path=/no/such/place", cwd=tmp_path)
    assert missing.returncode == 1 and "/no/such/place does not exist" in missing.stdout


def test_three_errors_at_once_and_no_traceback():
    shown = pipeline("embed", "finetune", "num_epoch=3", "learning_rate=-1", "temperature=0")
    assert shown.returncode == 1
    for part in ("num_epochs", "learning_rate='-1': must be > 0", "temperature='0': must be > 0"):
        assert part in shown.stderr
    assert "Traceback" not in shown.stderr


def test_a_word_that_is_no_override_is_refused():
    shown = pipeline("embed", "finetune", "quickly")
    assert shown.returncode == 1 and "key=value" in shown.stderr


def test_run_sends_a_bare_key_to_every_stage_that_has_it(tmp_path: Path):
    (tmp_path / "c").mkdir()
    shown = pipeline(
        "embed", "run", "-d", f"corpus_dir={tmp_path / 'c'}", "finetune.num_epochs=1", "seed=7", cwd=tmp_path
    )
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.startswith("sdg -> prep -> finetune -> eval -> export\n")
    assert shown.stdout.count("[command line]") >= 7


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("temperature=1", "sdg.temperature="),
        ("num_epoch=1", "did you mean num_epochs"),
        ("output_dir=/x", "different defaults"),
    ],
)
def test_run_refuses_a_key_that_no_stage_has_or_that_means_different_things(override, said):
    shown = pipeline("embed", "run", "-d", override)
    assert shown.returncode == 1 and said in shown.stderr


def test_run_checks_its_range():
    for arguments in (("--from", "eval", "--to", "prep"), ("--from", "nowhere")):
        shown = pipeline("embed", "run", *arguments)
        assert shown.returncode == 1 and "sdg, prep, finetune" in shown.stderr


def test_info_and_status(tmp_path: Path):
    info = pipeline("embed", "info", cwd=tmp_path)
    assert info.returncode == 0 and all(stage in info.stdout for stage in STAGES)
    status = pipeline("embed", "status", cwd=tmp_path)
    assert status.returncode == 0 and status.stdout.count("missing") == len(STAGES)
    assert not list(tmp_path.iterdir())


def test_help_imports_nothing_heavy():
    code = (
        "import sys\nsys.argv = ['pipeline', 'embed', '--help']\n"
        "from pipeline.cli.app import main\n"
        "try: main()\nexcept SystemExit: pass\n"
        "print([name for name in ('torch', 'transformers', 'omegaconf', 'yaml', 'numpy') if name in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert shown.stdout.rstrip().endswith("[]"), shown.stdout[-300:]


@pytest.mark.parametrize(("name", "said"), [("demoo", "did you mean demo?"), ("no/such.yaml", "no such file")])
def test_a_run_reports_an_unknown_configuration_once(name, said, tmp_path: Path):
    shown = pipeline("embed", "run", "-c", name, cwd=tmp_path)
    assert shown.returncode == 1 and said in shown.stderr
    assert shown.stderr.count(name) == 1, shown.stderr
