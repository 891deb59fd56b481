"""Which dataclass describes which stage of which family. Light: nothing heavy is imported here."""

from __future__ import annotations

from importlib import import_module

from pipeline.schemas.common import StageConfig

_SCHEMAS = {
    ("embed", "sdg"): "sdg:EmbedSdgConfig",
    ("embed", "prep"): "prep:EmbedPrepConfig",
    ("embed", "finetune"): "finetune:EmbedFinetuneConfig",
    ("embed", "eval"): "eval:EmbedEvalConfig",
    ("embed", "export"): "export:EmbedExportConfig",
    ("embed", "deploy"): "deploy:EmbedDeployConfig",
    ("rerank", "sdg"): "sdg:RerankSdgConfig",
    ("rerank", "prep"): "prep:RerankPrepConfig",
    ("rerank", "finetune"): "finetune:RerankFinetuneConfig",
    ("rerank", "eval"): "eval:RerankEvalConfig",
    ("rerank", "export"): "export:RerankExportConfig",
    ("rerank", "deploy"): "deploy:RerankDeployConfig",
}


def schema_of(family: str, stage: str) -> type[StageConfig]:
    """The dataclass whose fields are the stage's keys."""
    module, name = _SCHEMAS[family, stage].split(":")
    return getattr(import_module(f"pipeline.schemas.{module}"), name)
