"""Keys of the deploy stage."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from pipeline.schemas.common import StageConfig
from pipeline.schemas.fields import key


@dataclass(kw_only=True)
class DeployConfig(StageConfig):
    """An export in, a running service out."""

    output_dir: str = key(
        "${run_dir}/stage5_deploy", "Folder of the service record and its logs.", affects_output=False
    )
    backend: Literal["nim", "onnx"] = key("nim", "`nim`: NVIDIA's container; `onnx`: our own server with the same API.")
    model_dir: str | None = key(
        "${run_dir}/stage4_export/onnx",
        "Exported model that is served; null serves the model of NVIDIA's image.",
        reads="export",
    )
    nim_image: str = key("nvcr.io/nim/nvidia/llama-3.2-nv-embedqa-1b-v2:1.10.1", "Container image.")
    container_name: str = key("pipeline-embed-nim", "Name of the container.")
    bind_address: str = key("127.0.0.1", "Interface the service listens on.")
    host_port: int = key(8000, "Port the service listens on.", ge=1, le=65535)
    container_port: int = key(8000, "Port inside the container.", ge=1, le=65535)
    container_model_path: str = key("/opt/nim/custom_model", "Where the container finds the model.")
    container_cache_path: str = key(
        "/opt/nim/.cache",
        "Where the container keeps downloads; on the host ~/.cache/nim.",
        affects_output=False,
    )
    gpus: str = key("all", "GPUs of the container: `all`, a number, `device=0,2`, or `none`.")
    shm_size: str = key("2gb", "Shared memory of the container.")
    user: str | None = key(None, "Numeric user (`1000` or `1000:1000`) in the container; null takes the image's own.")
    served_model_name: str = key("custom", "Name clients use for the model.")
    detach: bool = key(False, "Run in the background.", affects_output=False)
    replace_existing: bool = key(False, "Stop a service of ours that already runs here.", affects_output=False)
    keep_failed_container: bool = key(False, "Keep an unhealthy detached service for inspection.", affects_output=False)
    health_check_timeout: float = key(120.0, "Seconds until the service must be healthy.", gt=0, affects_output=False)
    health_check_interval: float = key(
        5.0, "Seconds between health checks; the first ones come faster.", gt=0, affects_output=False
    )
    ngc_api_key_env: str = key("NGC_API_KEY", "Environment variable that holds the NGC key.", affects_output=False)
    max_request_texts: int = key(2048, "Most texts in one request of the onnx server; more are refused (413).", gt=0)
    batch_tokens: int = key(2048, "Padded tokens the onnx server computes at once.", gt=0)
    threads: int | None = key(None, "Threads of the onnx server; null takes one per physical core.", gt=0)

    def problems(self) -> list[tuple[str, str]]:
        found = []
        if not re.fullmatch(r"all|none|[1-9]\d*|device=[\w.:/-]+(,[\w.:/-]+)*", self.gpus):
            found.append(("gpus", "must be all, none, a number, or device=0,2"))
        if not re.fullmatch(r"\d+(\.\d+)?\s*([bkmg]|[kmg]b)?", self.shm_size, re.IGNORECASE):
            found.append(("shm_size", "must be a size such as 2gb"))
        if self.user is not None and not re.fullmatch(r"\d+(:\d+)?", self.user):
            found.append(("user", "must be numbers: 1000 or 1000:1000 (`id -u` shows yours), or null"))
        if not re.fullmatch(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+", self.container_name):
            found.append(("container_name", "must be letters, digits, _ . and -"))
        return found


@dataclass(kw_only=True)
class EmbedDeployConfig(DeployConfig):
    """deploy for bi-encoders: /v1/embeddings."""


@dataclass(kw_only=True)
class RerankDeployConfig(DeployConfig):
    """deploy for cross-encoders: /v1/ranking."""

    run_dir: str = key("./output/rerank", "Folder that all stages of this run share.", affects_output=False)
    nim_image: str = key("nvcr.io/nim/nvidia/llama-nemotron-rerank-1b-v2:1.10.0", "Container image.")
    container_name: str = key("pipeline-rerank-nim", "Name of the container.")
    shm_size: str = key("16gb", "Shared memory of the container.")
