from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from pipeline_export.main import main
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification, AutoTokenizer, BertConfig, BertModel

from pipeline.assets import resolve_model
from pipeline.config import resolve
from pipeline.contract import EncodingContract
from pipeline.retrieval.encoder import BiEncoder
from pipeline.run.files import write_json, write_jsonl
from pipeline.run.stage import execute

MINILM = "embedded:all-MiniLM-L6-v2"
PASSAGES = [
    "Pump P-2 starts when the tank falls below 20 %.",
    "Alarm E-104 means that the sieve column is blocked. " * 3,
    "The winch is greased every 500 hours. " * 9,
    "Zwölf Ölfässer stehen im Schuppen. " * 40,
    "Steward 4.1 changes how the doser is calibrated.",
    "短い文。",
]
QUERIES = ["why does it beep", "E-104", "How often do I grease the winch if it is used every day in winter?"]


@pytest.fixture(scope="session")
def minilm(tmp_path_factory) -> Path:
    """What finetune would have written: the real model, with a contract that has prefixes."""
    folder = tmp_path_factory.mktemp("minilm") / "consolidated"
    shutil.copytree(resolve_model(MINILM), folder)
    contract = EncodingContract(
        base_model=MINILM,
        query_prefix="query: ",
        passage_prefix="passage: ",
        query_max_length=256,
        passage_max_length=256,
    )
    BiEncoder.load(str(folder), contract).contract.save(folder)
    return folder


@pytest.fixture
def make_tiny(tmp_path):
    """Make a small BERT with random weights and MiniLM's tokenizer."""

    def make(name: str = "tiny", pooling: str = "avg", normalize: bool = True, seed: int = 0) -> Path:
        folder = tmp_path / name
        tokenizer = AutoTokenizer.from_pretrained(resolve_model(MINILM))
        torch.manual_seed(seed)
        size = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
        BertModel(BertConfig(vocab_size=len(tokenizer), max_position_embeddings=128, **size)).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        EncodingContract(
            base_model="tiny",
            pooling=pooling,
            normalize=normalize,
            query_prefix="q: ",
            query_max_length=16,
            passage_max_length=64,
        ).save(folder)
        return folder

    return make


@pytest.fixture
def make_reranker(tmp_path):
    """Make a small cross-encoder with random weights and MiniLM's tokenizer, as finetune saves one.

    `ready`: a classifier with a head of its own, instead of a body and the head beside it.
    """

    def make(kind: str = "bert", template: str | None = None, ready: bool = False) -> Path:
        folder = tmp_path / f"{kind}-reranker"
        tokenizer = AutoTokenizer.from_pretrained(resolve_model(MINILM))
        torch.manual_seed(0)
        size = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
        ids = {"vocab_size": len(tokenizer), "pad_token_id": 0, "bos_token_id": 101, "eos_token_id": 102}
        config = AutoConfig.for_model(kind, max_position_embeddings=128, **size, **ids)
        if ready:
            config.num_labels = 1
        model = (AutoModelForSequenceClassification if ready else AutoModel).from_config(config)
        for weight in model.parameters():
            weight.data *= 3  # far from the near-linear start, so that differences show
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        if not ready:
            write_json(folder / "2_Dense" / "config.json", {"module_output_name": "scores"})
            head = {"linear.weight": torch.randn(1, 32), "linear.bias": torch.zeros(1)}
            save_file(head, folder / "2_Dense" / "model.safetensors")
        EncodingContract("rerank", base_model=kind, prompt_template=template, rerank_max_length=64).save(folder)
        return folder

    return make


@pytest.fixture(scope="session")
def beir(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("beir")
    write_jsonl(folder / "corpus.jsonl", [{"_id": f"d{n}", "text": text} for n, text in enumerate(PASSAGES)])
    write_jsonl(folder / "queries.jsonl", [{"_id": f"q{n}", "text": text} for n, text in enumerate(QUERIES)])
    (folder / "qrels").mkdir()
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq0\td1\t1\nq1\td1\t1\nq2\td2\t1\n")
    return folder


@pytest.fixture
def export(tmp_path, beir):
    """Run the stage in this process; returns (failure, folder of the stage)."""

    def run(model: Path, *overrides: str, family: str = "embed") -> tuple[str | None, Path]:
        run_dir = tmp_path / "run"
        settings = [f"run_dir={run_dir}", f"model_path={model}", f"parity_data_path={beir}", "parity_texts=16"]
        failure = execute(resolve(family, "export", "demo", [*settings, *overrides]), main)
        return failure, run_dir / "stage4_export"

    return run
