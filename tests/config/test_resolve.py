"""YAML -> overrides -> interpolation -> dataclass, and every error at once."""

from pathlib import Path

import pytest

from pipeline.config import resolve, split_override
from pipeline.config.resolve import COMMAND_LINE
from pipeline.errors import ConfigError, PipelineError


def test_all_errors_are_reported_together_with_range_origin_and_nearest_key():
    with pytest.raises(ConfigError) as caught:
        resolve("embed", "finetune", "default", ["num_epoch=3", "learning_rate=-1", "temperature=0"])
    problems = {problem.key: problem for problem in caught.value.problems}
    assert set(problems) == {"num_epoch", "learning_rate", "temperature"}
    assert "num_epochs" in problems["num_epoch"].problem
    assert "> 0" in problems["learning_rate"].problem
    assert all(problem.origin == COMMAND_LINE for problem in problems.values())
    assert "learning_rate='-1'" in str(caught.value)


def test_run_dir_moves_every_path():
    config = resolve("embed", "finetune", "default", ["run_dir=/somewhere/else"]).config
    for value in (config.output_dir, config.checkpoint_dir, config.train_data_path, config.val_data_path):
        assert value.startswith("/somewhere/else/")


@pytest.mark.parametrize(
    ("override", "key", "value"),
    [
        ("query_prefix=query: ", "query_prefix", "query: "),
        ("query_prefix=a=b", "query_prefix", "a=b"),
        ("query_prefix=on", "query_prefix", "on"),
        ("query_prefix=10:30:00", "query_prefix", "10:30:00"),
        ("query_prefix=", "query_prefix", ""),
        ("learning_rate=2e-5", "learning_rate", 2e-5),
        ("max_steps=null", "max_steps", None),
        ("max_steps=7", "max_steps", 7),
        ("select_best=TRUE", "select_best", True),
        ("pooling=cls", "pooling", "cls"),
    ],
)
def test_an_override_is_read_as_the_type_of_its_key(override, key, value):
    assert getattr(resolve("embed", "finetune", "default", [override]).config, key) == value


@pytest.mark.parametrize(
    "override",
    ["num_epochs=1.5", "num_epochs=many", "select_best=perhaps", "pooling=max", "learning_rate=nan", "seed=yes"],
)
def test_a_value_of_the_wrong_type_is_refused(override):
    with pytest.raises(ConfigError):
        resolve("embed", "finetune", "default", [override])


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("rows.json", "rows.json"),
        ("hf://org/data/sub@v1", "hf://org/data/sub@v1"),
        ("[a.json,{path: b.jsonl, num_samples: 100}]", ["a.json", {"path": "b.jsonl", "num_samples": 100}]),
        ("[${run_dir}/a.json]", ["/run/a.json"]),
        ("null", None),
    ],
)
def test_data_sources_are_one_place_or_a_list(text, value):
    config = resolve("embed", "finetune", "default", ["run_dir=/run", f"val_data_path={text}"]).config
    assert config.val_data_path == value


def test_data_sources_in_yaml(tmp_path):
    own = tmp_path / "own.yaml"
    own.write_text("extends: default\ntrain_data_path:\n  - ${run_dir}/a.json\n  - {path: b.json, num_samples: 3}\n")
    config = resolve("embed", "finetune", str(own), ["run_dir=/run"]).config
    assert config.train_data_path == ["/run/a.json", {"path": "b.json", "num_samples": 3}]


def test_lists_and_inner_keys():
    assert resolve("embed", "eval", "default", ["k_values=[1,60]"]).config.k_values == [1, 60]
    counts = resolve("embed", "sdg", "default", ["query_counts.multi_hop=5"]).config.query_counts
    assert counts["multi_hop"] == 5 and counts["structural"] == 2


def test_environment_variables_fill_in_only_where_asked(monkeypatch):
    monkeypatch.setenv("BASE_MODEL", "from-the-environment")
    monkeypatch.setenv("base_model", "from-the-environment")
    monkeypatch.setenv("EPOCHS", "7")
    config = resolve("embed", "finetune", "default", ["num_epochs=${oc.env:EPOCHS}", "seed=${oc.env:NO_SUCH,5}"]).config
    assert config.base_model != "from-the-environment"
    assert (config.num_epochs, config.seed) == (7, 5)


def test_an_interpolation_that_cannot_be_filled_in_names_the_key():
    with pytest.raises(ConfigError, match="output_dir"):
        resolve("embed", "sdg", "default", ["output_dir=${no_such_key}/x"])


def test_a_users_yaml_extends_a_shipped_one_and_its_keys_count_as_set_by_hand(tmp_path: Path):
    own = tmp_path / "mine.yaml"
    own.write_text("extends: default\nglobal_batch_size: 64\n")
    resolved = resolve("embed", "finetune", str(own), ["num_epochs=2"])
    assert resolved.config.global_batch_size == 64
    assert resolved.explicit == {"global_batch_size", "num_epochs"}
    assert resolved.origins["global_batch_size"].endswith("mine.yaml:2")


def test_errors_in_a_yaml_file_name_file_and_line(tmp_path: Path):
    own = tmp_path / "mine.yaml"
    own.write_text("extends: default\n\nnum_epochs: 0\nnum_epochz: 1\n")
    with pytest.raises(ConfigError) as caught:
        resolve("embed", "finetune", str(own))
    assert {problem.origin.rsplit("/", 1)[-1] for problem in caught.value.problems} == {"mine.yaml:3", "mine.yaml:4"}


def test_broken_yaml_and_unknown_profiles_are_named(tmp_path: Path):
    broken = tmp_path / "broken.yaml"
    broken.write_text("a: [1\nb: 2\n")
    with pytest.raises(PipelineError, match=r"broken.yaml:\d"):
        resolve("embed", "finetune", str(broken))
    with pytest.raises(PipelineError, match="defualt") as caught:
        resolve("embed", "finetune", "defualt")
    assert "default" in caught.value.fix


def test_a_circle_of_extends_is_an_error(tmp_path: Path):
    (tmp_path / "a.yaml").write_text("extends: ./b.yaml\n")
    (tmp_path / "b.yaml").write_text("extends: ./a.yaml\n")
    with pytest.raises(PipelineError, match="circle"):
        resolve("embed", "finetune", str(tmp_path / "a.yaml"))


def test_secrets_leave_the_configuration():
    resolved = resolve("embed", "sdg", "default", ["nvidia_api_key=nvapi-secret"])
    assert resolved.secrets == {"NVIDIA_API_KEY": "nvapi-secret"}
    assert "nvapi-secret" not in repr(resolved.values())
    assert resolved.config.nvidia_api_key is None


def test_rules_over_several_keys_are_checked():
    with pytest.raises(ConfigError, match="must be 1"):
        resolve("embed", "prep", "default", ["train_ratio=0.5"])
    with pytest.raises(ConfigError, match="base_model_revision"):
        resolve("embed", "prep", "default", ["trust_remote_code=true"])
    for ratios in (("0.8", "0.2", "0"), ("0.9", "0", "0.1"), ("0.7", "0.1", "0.2")):
        keys = ("train_ratio", "val_ratio", "test_ratio")
        resolve("embed", "prep", "default", [f"{key}={value}" for key, value in zip(keys, ratios, strict=True)])


def test_an_override_is_split_at_the_first_equals_sign():
    assert split_override("a=b=c") == ("a", "b=c")
