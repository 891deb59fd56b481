"""The command line and the environment that the far side is given."""

from pathlib import Path

import pytest

from pipeline.config import resolve
from pipeline.errors import PipelineError
from pipeline.execution.environment import environment_for, secret_file
from pipeline.execution.plan import make_plan
from pipeline.execution.profile import Profile
from pipeline.execution.tasks import far_command, joined_arguments, make_task


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("NVIDIA_API_KEY", "OPENAI_API_KEY", "HF_TOKEN", "WANDB_API_KEY", "MY_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))


def task(stage: str, *overrides: str, family: str = "rerank", config: str = "smoke", chained: bool = False, **more):
    own = [text.removeprefix(f"{stage}.") for text in overrides if text.partition(".")[0] in (stage, text)]
    return make_task(make_plan(resolve(family, stage, config, own)), config, overrides, chained=chained, **more)


def test_the_far_side_runs_the_same_command_line():
    one = task("finetune", "num_epochs=1", options=["--verbose"])
    assert one.name == "rerank-finetune"
    assert one.arguments == ["rerank", "finetune", "-c", "smoke", "--verbose", "num_epochs=1"]
    assert far_command(one.arguments, "/code")[:7] == [
        "uv",
        "run",
        "--project",
        "/code",
        "--frozen",
        "--no-dev",
        "pipeline",
    ]


def test_a_part_of_a_run_is_run_as_such_so_that_what_is_fresh_is_skipped():
    tasks = [task(stage, "finetune.num_epochs=1", chained=True, options=["--force"]) for stage in ("finetune", "eval")]
    rest = ["-c", "smoke", "--force", "finetune.num_epochs=1"]
    assert tasks[1].arguments == ["rerank", "run", "--from", "eval", "--to", "eval", *rest]
    assert joined_arguments(tasks) == ["rerank", "run", "--from", "finetune", "--to", "eval", *rest]


@pytest.mark.parametrize("chained", [False, True])
def test_a_secret_of_the_command_line_goes_by_the_environment(chained):
    prefix = "sdg." if chained else ""
    sdg = task("sdg", f"{prefix}nvidia_api_key=canary", "num_pairs=1", chained=chained)
    assert "canary" not in " ".join(sdg.arguments) and "num_pairs=1" in sdg.arguments
    environment = environment_for([sdg], Profile(name="p"))
    assert environment.secret == {"NVIDIA_API_KEY": "canary"}
    assert "canary" not in "".join(environment.lines()) and "NVIDIA_API_KEY (secret, set)" in environment.lines()


def test_a_bare_secret_in_a_run_is_kept_from_the_stages_without_that_key():
    prep = make_task(make_plan(resolve("rerank", "prep", "smoke")), "smoke", ["nvidia_api_key=canary"], chained=True)
    assert "canary" not in " ".join(prep.arguments)


def test_each_stage_is_given_its_own_secrets_alone(monkeypatch):
    for name in ("NVIDIA_API_KEY", "OPENAI_API_KEY", "HF_TOKEN", "WANDB_API_KEY", "MY_KEY", "OTHER"):
        monkeypatch.setenv(name, f"value of {name}")
    given = {
        "sdg": {"NVIDIA_API_KEY"},
        "prep": set(),
        "finetune": set(),
    }
    for stage, names in given.items():
        assert set(environment_for([task(stage)], Profile(name="p")).secret) == names
    assert set(environment_for([task("sdg", "provider=openai")], Profile(name="p")).secret) == {
        "NVIDIA_API_KEY", "OPENAI_API_KEY"
    }  # fmt: skip
    hub = task("finetune", "base_model=org/model", "wandb=true")
    assert set(environment_for([hub], Profile(name="p")).secret) == {"HF_TOKEN", "WANDB_API_KEY"}
    named = task("eval", "nim_api_key_env=MY_KEY")
    assert environment_for([named], Profile(name="p")).secret == {"MY_KEY": "value of MY_KEY"}


def test_the_token_of_a_login_is_found_for_models_of_the_hub(tmp_path: Path):
    hub = task("finetune", "base_model=org/model")
    assert environment_for([hub], Profile(name="p")).unset == ("HF_TOKEN",)
    (tmp_path / "hf").mkdir()
    (tmp_path / "hf" / "token").write_text("hf_login\n")
    assert environment_for([hub], Profile(name="p")).secret == {"HF_TOKEN": "hf_login"}


def test_values_of_the_profile_that_look_secret_are_treated_so():
    plain = {"NCCL_DEBUG": "INFO", "TOKENIZERS_PARALLELISM": "false", "MAX_TOKENS": "9", "MONKEYS": "3"}
    secret = {"MY_TOKEN": "t", "AWS_SECRET_ACCESS_KEY": "a", "PGPASSWORD": "p", "MYAPIKEY": "k", "api_key": "l"}
    environment = environment_for([task("prep")], Profile(name="p", env_vars=plain | secret))
    assert (environment.plain, environment.secret) == (plain, secret)


def test_a_key_in_the_place_of_its_variables_name_is_refused_and_not_shown():
    with pytest.raises(PipelineError, match="nim_api_key_env holds no name") as caught:
        environment_for([task("eval", "nim_api_key_env=sk-canary")], Profile(name="p"))
    assert "canary" not in str(caught.value)


def test_weights_and_biases_of_env_toml_reach_the_stage_that_logs(tmp_path: Path):
    (tmp_path / "env.toml").write_text('[wandb]\nproject = "mine"\n')
    assert environment_for([task("finetune")], Profile(name="p")).plain == {
        "PIPELINE_WANDB": "1", "WANDB_PROJECT": "mine"
    }  # fmt: skip
    assert environment_for([task("eval")], Profile(name="p")).plain == {}


def test_a_secret_file_survives_a_shell():
    import subprocess

    value = "a b'c\"$HOME`id`\nnext"
    script = f"set -a\n{secret_file({'KEY': value})}set +a\nprintenv KEY"
    assert subprocess.run(["sh", "-c", script], capture_output=True, text=True).stdout == value + "\n"


def test_own_configuration_files_are_named_with_what_they_extend(tmp_path: Path):
    (tmp_path / "base.yaml").write_text("extends: smoke\nseed: 1\n")
    (tmp_path / "my.yaml").write_text("extends: base\nseed: 2\n")
    mine = task("prep", config="./my.yaml")
    assert [path.name for path in mine.own_files()] == ["base.yaml", "my.yaml"]
    assert task("prep").own_files() == []
