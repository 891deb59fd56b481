"""The two families of models. A family is data: what differs between `embed` and `rerank` stands here, once."""

from __future__ import annotations

from dataclasses import dataclass

STAGES = ("sdg", "prep", "finetune", "eval", "export", "deploy")

STAGE_SUMMARY = {
    "sdg": "Read documents, write question–answer pairs with an LLM.",
    "prep": "Filter, split without leakage, write the test set, mine hard negatives, unroll.",
    "finetune": "Train the model on the mined rows.",
    "eval": "Compare base and tuned on held-out questions, with confidence.",
    "export": "Write ONNX (and TensorRT) and prove it gives the same numbers.",
    "deploy": "Serve the model with the NIM and OpenAI API.",
}

HELP_PANELS = {
    "sdg": "Data",
    "prep": "Data",
    "finetune": "Training",
    "eval": "Evaluation",
    "export": "Deployment",
    "deploy": "Deployment",
}


@dataclass(frozen=True)
class Family:
    """One kind of model with its own command group, configurations and run directory."""

    name: str
    title: str
    architecture: str
    folders: dict[str, str]

    @property
    def default_run_dir(self) -> str:
        return f"./output/{self.name}"


def _folders(prep: str) -> dict[str, str]:
    return {
        "sdg": "stage0_sdg",
        "prep": prep,
        "finetune": "stage2_finetune",
        "eval": "stage3_eval",
        "export": "stage4_export",
        "deploy": "stage5_deploy",
    }


EMBED = Family(
    name="embed",
    title="Embedding model",
    architecture="bi-encoder: query and passage are embedded apart and compared by cosine",
    folders=_folders("stage1_data_prep"),
)
RERANK = Family(
    name="rerank",
    title="Reranking model",
    architecture="cross-encoder: query and passage are read together and scored",
    folders=_folders("stage1_prep"),
)
FAMILIES = {family.name: family for family in (EMBED, RERANK)}
