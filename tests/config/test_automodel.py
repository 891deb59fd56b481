"""AutoModel's retrieval configurations become ours, and no key of theirs is lost without a word."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.config import resolve
from pipeline.config.automodel import Conversion, convert_file
from pipeline.config.automodel_keys import KEYS, To
from pipeline.config.automodel_yaml import to_yaml
from pipeline.errors import PipelineError
from pipeline.family import FAMILIES
from pipeline.schemas import schema_of
from pipeline.schemas.fields import keys_of

FIXTURES = Path(__file__).parent / "fixtures"
BI, CROSS = FIXTURES / "automodel_bi_encoder.yaml", FIXTURES / "automodel_cross_encoder.yaml"


def values(conversion: Conversion) -> dict[str, Any]:
    return {key: item.value for key, item in conversion.converted.items()}


def lost(conversion: Conversion) -> dict[str, str]:
    return {item.key: item.reason for item in conversion.lost}


def resolved(conversion: Conversion, folder: Path):
    path = folder / "converted.yaml"
    path.write_text(to_yaml(conversion))
    return resolve(conversion.family, "finetune", str(path))


def changed(folder: Path, base: Path = BI, **sections: Any) -> Conversion:
    """The fixture with some keys of some sections changed."""
    document = yaml.safe_load(base.read_text())
    for name, content in sections.items():
        document[name] = document.get(name, {}) | content if isinstance(content, dict) else content
    path = folder / "changed.yaml"
    path.write_text(yaml.safe_dump(document))
    return convert_file(path)


def leaves(value: Any, name: str = "") -> int:
    """Keys of a YAML document, counting what is read as one piece (data, LoRA, their tests) once."""
    if not isinstance(value, dict) or name in ("data_dir_list", "peft", "ci"):
        return 1
    return sum(leaves(item, inner) for inner, item in value.items())


def test_the_documented_example_is_converted_whole(tmp_path):
    conversion = convert_file(BI)
    assert conversion.family == "embed" and conversion.lost == []
    config = resolved(conversion, tmp_path).config
    expected = {
        "seed": 42, "base_model": "meta-llama/Llama-3.2-1B", "share_encoder": True, "pooling": "avg",
        "l2_normalize": True, "precision": "bf16", "train_n_passages": 5, "eval_negative_size": 4, "temperature": 0.02,
        "train_data_path": "/path/to/train_data.json", "val_data_path": None, "query_max_length": 512,
        "passage_max_length": 512, "query_prefix": "query: ", "passage_prefix": "passage: ", "pad_to_multiple_of": 8,
        "learning_rate": 5e-6, "weight_decay": 0.01, "lr_warmup_steps": 100, "global_batch_size": 128,
        "local_batch_size": 4, "checkpoint_every_steps": 500, "val_every_steps": 500, "num_epochs": 1,
        "timeout_minutes": 1, "checkpoint_dir": "./output/llama3_2_1b_biencoder/checkpoints",
    }  # fmt: skip
    assert {key: getattr(config, key) for key in expected} == expected


def test_a_cross_encoder_keeps_what_fits_and_names_what_does_not(tmp_path):
    conversion = convert_file(CROSS)
    config = resolved(conversion, tmp_path).config
    assert conversion.family == "rerank"
    assert (config.temperature, config.rerank_max_length, config.train_n_passages) == (0.5, 384, 8)
    assert config.prompt_template == "question:{query} \n \n passage:{passage}"
    fever = "hf://nvidia/embed-nemotron-dataset-v1/FEVER"
    assert config.train_data_path == [fever, {"path": "./more.json", "num_samples": 1000}, "./all.json"]
    assert (config.val_data_path, config.eval_negative_size) == ("./validation.json", 8)
    assert (config.optimizer_backend, config.keep_checkpoints, config.wandb) == ("adamw", 3, True)
    reasons = lost(conversion)
    for name in ("model.torch_dtype", "peft", "ci", "checkpoint.is_async", "lr_scheduler.lr_decay_style",
                 "dataset.seed", "tokenizer.add_eos_token", "wandb.project"):  # fmt: skip
        assert name in reasons, name
    assert "did you mean optimizer.weight_decay" in reasons["optimizer.wieght_decay"]
    assert "base_model_revision" in reasons["model.trust_remote_code"] and not config.trust_remote_code
    assert "not supported" in reasons["distributed.tp_size"] and config.tp_size == 1


@pytest.mark.parametrize("path", [BI, CROSS])
def test_every_key_of_the_file_is_in_one_of_the_lists(path):
    conversion = convert_file(path)
    theirs = [item.key for item in conversion.needless + conversion.lost]
    added = ("AutoModel's default", "no validation data in the file", "the section `wandb`")
    theirs += [item.origin for item in conversion.converted.values() if item.origin not in added]
    assert len(theirs) == len(set(theirs)) == leaves(yaml.safe_load(path.read_text()))
    text = to_yaml(conversion)
    assert all(item.reason in text for item in conversion.lost)


def test_keys_the_file_leaves_out_keep_the_meaning_they_have_there(tmp_path):
    document = yaml.safe_load(BI.read_text())
    del document["temperature"], document["step_scheduler"]
    del document["dataloader"]["collate_fn"]["query_prefix"], document["dataloader"]["collate_fn"]["passage_prefix"]
    path = tmp_path / "short.yaml"
    path.write_text(yaml.safe_dump(document))
    config = resolved(convert_file(path), tmp_path).config
    assert (config.temperature, config.query_prefix, config.passage_prefix, config.num_epochs) == (1.0, "", "", 10)
    assert config.val_every_steps is None


def test_negatives_across_processes_are_in_batch_negatives_too(tmp_path):
    config = resolved(changed(tmp_path, model={"do_distributed_inbatch_negative": True}), tmp_path).config
    assert config.in_batch_negatives and config.cross_rank_negatives


def test_temperature_has_no_effect_without_normalisation_there(tmp_path):
    conversion = changed(tmp_path, model={"l2_normalize": False})
    assert values(conversion)["temperature"] == 1.0 and "l2_normalize" in lost(conversion)["temperature"]


@pytest.mark.parametrize(
    ("sources", "ours"),
    [
        ("a.json", "a.json"),
        ({"path": "a.json"}, "a.json"),
        ({"path": "a.json", "num_samples": 9}, [{"path": "a.json", "num_samples": 9}]),
        (["a.json", "hf://o/r"], ["a.json", "hf://o/r"]),
    ],
)
def test_data_may_be_named_in_every_documented_way(tmp_path, sources, ours):
    document = yaml.safe_load(BI.read_text())
    document["dataset"] = document["dataloader"].pop("dataset") | {"data_dir_list": sources}
    path = tmp_path / "sources.yaml"
    path.write_text(yaml.safe_dump(document))
    assert values(convert_file(path))["train_data_path"] == ours


@pytest.mark.parametrize(
    ("section", "content", "key", "said"),
    [
        ("temperature", 0, "temperature", "must be > 0"),
        ("train_n_passages", 1, "train_n_passages", "must be >= 2"),
        ("seed", "${oc.env:SEED}", "seed", "write the value itself"),
        ("model", {"pooling": "max"}, "model.pooling", "no such choice"),
        ("model", {"num_labels": 1}, "model.num_labels", "embed has no such setting"),
        ("optimizer", {"betas": [0.8, 0.99]}, "optimizer.betas", "0.9 and 0.999"),
        ("train_n_passages", 4, "train_n_passages", "dataset.train_n_passages says 5 already"),
    ],
)
def test_what_cannot_be_said_here_is_listed_with_the_reason(tmp_path, section, content, key, said):
    conversion = changed(tmp_path, **{section: content})
    assert said in lost(conversion)[key]
    resolved(conversion, tmp_path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "automodel_broken.yaml:4"),
        ("recipe: TrainBiEncoderRecipe", "model.pretrained_model_name_or_path and no dataset.data_dir_list"),
        ("recipe: DistillBiEncoderRecipe", "DistillBiEncoderRecipe"),
        ("model: {_target_: os.system}", "os.system"),
        ("seed: 1", "no retrieval recipe"),
        ("[1, 2]", "must hold"),
        ("mining: {model_name_or_path: x}", "mining of negatives"),
        ("recipe: TrainCrossEncoderRecipe\nmodel: {_target_: x.NeMoAutoModelBiEncoder.from_pretrained}", "contradict"),
        ("recipe: TrainBiEncoderRecipe\ndataset: {seed: 1}\ndataloader: {dataset: {seed: 1}}", "stands here twice"),
    ],
)
def test_a_file_that_is_no_recipe_gives_one_clear_error(tmp_path, text, said):
    path = FIXTURES / "automodel_broken.yaml"
    if text is not None:
        path = tmp_path / "given.yaml"
        path.write_text(text)
    with pytest.raises(PipelineError, match=r"\.yaml") as caught:
        convert_file(path)
    assert said in str(caught.value)


def test_every_rule_leads_to_a_key_that_exists():
    ours = {key for family in FAMILIES for key in keys_of(schema_of(family, "finetune"))}
    assert {rule.key for rule in KEYS.values() if isinstance(rule, To)} <= ours
