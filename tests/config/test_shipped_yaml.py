"""Every shipped YAML fits its schema, and the defaults are the documented ones."""

import dataclasses
from pathlib import Path

import pytest

from pipeline.config import resolve
from pipeline.config.yaml_file import read_yaml
from pipeline.family import FAMILIES, STAGES
from pipeline.home import workspace
from pipeline.schemas import schema_of
from pipeline.schemas.fields import keys_of

SHIPPED = sorted((workspace() / "stages").glob("*/config/*/*.yaml"))
BOTH = [(family, stage) for family in FAMILIES for stage in STAGES]

# What the public documents state for `-c default` (and docs/decisions.md where they disagree).
LLM = "nvidia/nemotron-3-nano-30b-a3b"
EMBEDDER = "nvidia/llama-nemotron-embed-1b-v2"
RERANKER = "nvidia/llama-nemotron-rerank-1b-v2"
TEMPLATE = "question:{query} \n \n passage:{passage}"
SDG = {
    "corpus_id": "my_corpus", "corpus_dir": "./data/corpus", "file_extensions": ".txt,.md,.text,",
    "artifact_extraction_model": LLM, "qa_generation_model": LLM, "quality_judge_model": LLM,
    "max_parallel_requests_for_gen": 4, "num_pairs": 10, "sentences_per_chunk": 5, "max_artifacts_per_type": 2,
    "min_hops": 1, "max_hops": 3, "min_complexity": 2, "similarity_threshold": 0.9, "min_text_length": 50,
    "num_sections": 1, "num_files": None, "allow_remote": "yes",
}  # fmt: skip
PREP = {
    "base_model": EMBEDDER, "quality_threshold": 7.0, "hard_negatives_to_mine": 5, "hard_neg_margin": 0.95,
    "query_max_length": 512, "passage_max_length": 512, "mining_batch_size": 128, "max_pos_docs": 5,
    "query_prefix": "query: ", "passage_prefix": "passage: ", "train_ratio": 0.8, "round_trip_top_k": None,
}  # fmt: skip
FINETUNE = {
    "num_epochs": 3, "global_batch_size": 128, "local_batch_size": 4, "train_n_passages": 5, "weight_decay": 0.01,
    "lr_decay_style": "cosine", "optimizer_backend": "auto", "flash_adamw_master_weight_bits": 32,
    "attn_implementation": None, "checkpoint_every_steps": 100, "val_every_steps": 100, "pooling": "avg",
}  # fmt: skip
EVAL = {
    "k_values": [1, 5, 10, 100], "eval_base": True, "eval_finetuned": True, "eval_nim": False,
    "nim_url": "http://localhost:8000", "nim_model": None, "nim_metric_tolerance": 0.01,
    "nim_metric_low_k_tolerance": 0.03,
}  # fmt: skip
EXPORT = {
    "quant_cfg": None, "trt_opt_batch": 16, "trt_min_batch": 1, "trt_max_batch": 64, "trt_min_seq_len": 3,
    "opset": 17, "trt_max_seq_len": None,
}  # fmt: skip
DEPLOY = {"host_port": 8000, "detach": False, "bind_address": "127.0.0.1", "served_model_name": "custom",
          "replace_existing": False, "keep_failed_container": False, "backend": "nim"}  # fmt: skip
DOCUMENTED = {
    ("embed", "sdg"): SDG | {"run_dir": "./output/embed", "output_dir": "./output/embed/stage0_sdg"},
    ("embed", "prep"): PREP | {"val_ratio": 0.1, "test_ratio": 0.1, "output_dir": "./output/embed/stage1_data_prep"},
    ("embed", "finetune"): FINETUNE | {
        "base_model": EMBEDDER, "learning_rate": 1e-5, "lr_warmup_steps": 5, "temperature": 0.02,
        "query_max_length": 512, "passage_max_length": 512, "l2_normalize": True, "in_batch_negatives": False,
        "train_data_path": "./output/embed/stage1_data_prep/train_mined.automodel_unrolled.json",
    },
    ("embed", "eval"): EVAL | {
        "base_model": EMBEDDER, "eval_data_path": "./output/embed/stage1_data_prep/eval_beir",
        "finetuned_model_path": "./output/embed/stage2_finetune/checkpoints/LATEST/model/consolidated",
    },
    ("embed", "export"): EXPORT | {
        "export_to_trt": True, "trt_opt_seq_len": 128, "onnx_export_path": "./output/embed/stage4_export/onnx",
        "model_path": "./output/embed/stage2_finetune/checkpoints/LATEST/model/consolidated",
    },
    ("embed", "deploy"): DEPLOY | {
        "nim_image": "nvcr.io/nim/nvidia/llama-3.2-nv-embedqa-1b-v2:1.10.1", "container_name": "pipeline-embed-nim",
        "model_dir": "./output/embed/stage4_export/onnx",
    },
    ("rerank", "sdg"): SDG | {"run_dir": "./output/rerank", "output_dir": "./output/rerank/stage0_sdg"},
    ("rerank", "prep"): PREP | {"val_ratio": 0.0, "test_ratio": 0.2, "output_dir": "./output/rerank/stage1_prep"},
    ("rerank", "finetune"): FINETUNE | {
        "base_model": RERANKER, "learning_rate": 3e-6, "lr_warmup_steps": 100, "temperature": 1.0, "num_labels": 1,
        "rerank_max_length": 512, "prompt_template": TEMPLATE,
    },
    ("rerank", "eval"): EVAL | {
        "base_model": RERANKER, "retrieval_model": EMBEDDER, "top_k": 100, "max_length": 512, "nim_truncate": "END",
        "prompt_template": TEMPLATE,
    },
    ("rerank", "export"): EXPORT | {
        "export_to_trt": False, "trt_opt_seq_len": 256, "prompt_template": TEMPLATE,
        "calibration_query": "what information is relevant to this query?",
    },
    ("rerank", "deploy"): DEPLOY | {
        "nim_image": "nvcr.io/nim/nvidia/llama-nemotron-rerank-1b-v2:1.10.0", "container_name": "pipeline-rerank-nim",
        "model_dir": "./output/rerank/stage4_export/onnx",
    },
}  # fmt: skip


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: "/".join(path.parts[-4:]))
def test_a_shipped_yaml_fits_its_schema(path: Path):
    stage, family = path.parts[-4], path.parts[-2]
    resolved = resolve(family, stage, path.stem)
    assert not resolved.explicit  # shipped values are nobody's own choice


@pytest.mark.parametrize(("family", "stage"), BOTH)
def test_the_default_states_every_key_and_agrees_with_the_schema(family, stage):
    path = workspace() / "stages" / stage / "config" / family / "default.yaml"
    values, _ = read_yaml(path)
    assert set(values) == set(keys_of(schema_of(family, stage)))
    config = resolve(family, stage).config
    plain = schema_of(family, stage)()
    for name, value in dataclasses.asdict(config).items():
        default = getattr(plain, name)
        if isinstance(default, str) and "${" in default:
            continue
        if (stage, name) == ("sdg", "allow_remote"):
            continue  # the documents' commands must work as they stand; a config of one's own asks first
        assert value == default, name


@pytest.mark.parametrize(("family", "stage"), BOTH)
def test_the_default_holds_the_documented_values(family, stage):
    config = resolve(family, stage).config
    differing = {
        name: (getattr(config, name), value)
        for name, value in DOCUMENTED[family, stage].items()
        if getattr(config, name) != value
    }
    assert not differing


@pytest.mark.parametrize("path", [path for path in SHIPPED if path.stem == "default"], ids=lambda path: path.parts[-4])
def test_every_key_of_the_default_is_explained(path: Path):
    lines = path.read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines):
        if line and not line.startswith((" ", "#", "-")):
            above = lines[number - 1] if number else ""
            assert "#" in line or above.lstrip().startswith("#"), f"{path}:{number + 1}: {line}"


@pytest.mark.parametrize("profile", ["default", "demo", "smoke"])
@pytest.mark.parametrize(
    ("key", "stages"),
    [
        ("run_dir", STAGES),
        ("base_model", ("prep", "finetune", "eval")),
        ("query_prefix", ("prep", "finetune", "eval")),
        ("passage_prefix", ("prep", "finetune", "eval")),
        ("query_max_length", ("prep", "finetune", "eval")),
        ("passage_max_length", ("prep", "finetune", "eval")),
        ("pooling", ("prep", "finetune", "eval")),
        ("l2_normalize", ("prep", "finetune", "eval")),
        ("corpus_id", ("sdg", "prep")),
        ("corpus_dir", ("sdg", "eval")),
    ],
)
def test_a_value_that_several_stages_repeat_is_the_same_everywhere(profile, key, stages):
    values = {stage: getattr(resolve("embed", stage, profile).config, key) for stage in stages}
    assert len(set(values.values())) == 1, values


@pytest.mark.parametrize("profile", ["default", "demo", "smoke"])
@pytest.mark.parametrize(
    "keys",
    [
        {stage: "run_dir" for stage in STAGES},
        {"finetune": "base_model", "eval": "base_model"},
        {"finetune": "prompt_template", "eval": "prompt_template"},
        {"finetune": "rerank_max_length", "eval": "max_length"},
        {"prep": "query_prefix", "eval": "query_prefix"},
        {"prep": "passage_prefix", "eval": "passage_prefix"},
        {"prep": "base_model", "eval": "retrieval_model"},
        {"prep": "fallback_base_model", "eval": "base_retrieval_model"},
        {"sdg": "corpus_id", "prep": "corpus_id"},
        {"sdg": "corpus_dir", "eval": "corpus_dir"},
    ],
    ids=lambda keys: "-".join(sorted(set(keys.values()))),
)
def test_a_value_that_several_stages_of_rerank_repeat_is_the_same_everywhere(profile, keys):
    values = {stage: getattr(resolve("rerank", stage, profile).config, key) for stage, key in keys.items()}
    assert len(set(values.values())) == 1, values


FILES = {"run_dir", "output_dir", "sdg_input_path", "cache_embeddings_dir"}


@pytest.mark.parametrize("profile", ["demo", "smoke"])
@pytest.mark.parametrize("stage", ["sdg", "prep"])
def test_the_families_make_their_data_alike(profile, stage):
    """They differ in where the files go and in how negatives are mined, but not in the split (which the demo sets)."""
    embed, rerank = (resolve(family, stage, profile).values() for family in ("embed", "rerank"))
    different = {name for name in embed if embed[name] != rerank.get(name)}
    assert different <= {*FILES, "base_model", "hard_negatives_to_mine"}, different
