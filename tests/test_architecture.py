"""Who may import whom (the contracts stand in pyproject.toml), and what a stage folder must hold."""

import re
import tomllib
from pathlib import Path

import pytest
from importlinter.cli import lint_imports

from pipeline.family import STAGES
from pipeline.home import workspace


def test_the_import_contracts_hold(capsys, monkeypatch):
    monkeypatch.setattr("logging.config.dictConfig", lambda _: None)  # it would silence our loggers in later tests
    code = lint_imports(config_filename=str(workspace() / "pyproject.toml"), no_cache=True)
    assert code == 0, capsys.readouterr().out


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_is_a_workspace_member_with_its_own_dependencies_and_entry(stage):
    folder = workspace() / "stages" / stage
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    assert project["name"] == f"pipeline-{stage}"
    assert project["scripts"] == {f"pipeline-{stage}": f"pipeline_{stage}.main:cli"}
    assert (folder / "README.md").is_file()
    assert (workspace() / "docs" / f"{stage}.md").is_file()


def test_the_root_package_needs_no_torch():
    project = tomllib.loads((workspace() / "pyproject.toml").read_text())["project"]
    assert not any(name.startswith(("torch", "transformers", "pyarrow")) for name in project["dependencies"])


def test_no_model_weights_are_in_the_repository():
    endings = {".safetensors", ".gguf", ".onnx", ".pt", ".bin", ".pkl"}
    own = [folder for folder in ("src", "stages", "data", "tests", "docs") if (workspace() / folder).is_dir()]
    found = [path for folder in own for path in (workspace() / folder).rglob("*") if path.suffix in endings]
    assert not [path for path in found if ".venv" not in path.parts], found


def test_no_path_of_one_machine_is_in_the_code():
    for path in [*workspace().glob("src/**/*.py"), *workspace().glob("stages/*/src/**/*.py")]:
        text = Path(path).read_text(encoding="utf-8")
        assert "/root/" not in text and "../shared" not in text, path


def test_only_the_command_line_and_the_ends_of_processes_print():
    """Library code raises or logs. The others here are where a process ends, or tells what it has made."""
    ends = {"run/stage.py", "retrieval/launch.py"}
    root = workspace() / "src" / "pipeline"
    found = {str(path.relative_to(root)) for path in root.rglob("*.py") if re.search(r"\bprint\(", path.read_text())}
    assert {name for name in found if not name.startswith("cli/")} == ends
