"""Keys of the export stage."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from pipeline.schemas.common import StageConfig
from pipeline.schemas.fields import key
from pipeline.schemas.finetune import PROMPT_TEMPLATE, template_problems


@dataclass(kw_only=True)
class ExportConfig(StageConfig):
    """A checkpoint in, ONNX (and TensorRT) that gives the same numbers out."""

    version: ClassVar[int] = 3

    output_dir: str = key("${run_dir}/stage4_export", "Folder of the stage.", affects_output=False)
    model_path: str = key(
        "${run_dir}/stage2_finetune/checkpoints/LATEST/model/consolidated", "The model to export.", reads="finetune"
    )
    trust_remote_code: bool = key(False, "Run Python code that lies in the model's folder.")
    parity_data_path: str | None = key(
        "${run_dir}/stage1_data_prep/eval_beir",
        "BEIR folder whose texts the parity check uses; null takes a few built-in texts.",
        reads="prep",
        optional_input=True,
    )
    onnx_export_path: str = key("${output_dir}/onnx", "Folder of the ONNX model.", affects_output=False)
    opset: int = key(17, "ONNX operator set.", ge=17, le=20)
    export_dtype: Literal["fp32", "fp16"] = key(
        "fp32", "`fp16` writes a half-size model beside the fp32 one, in <onnx_export_path>_fp16."
    )
    quant_cfg: Literal["fp8", "int8_sq"] | None = key(
        None, "Writes an 8-bit model beside the fp32 one, in <onnx_export_path>_fp8 or _int8."
    )
    calibration_data_path: str | None = key(
        "${run_dir}/stage1_data_prep/train.json",
        "Training file whose questions and passages calibrate an 8-bit model; null takes passages of parity_data_path.",
        reads="prep",
        optional_input=True,
    )
    calibration_samples: int = key(128, "Pairs of question and passage (or passages) for calibration.", ge=8)
    export_to_trt: bool = key(True, "Build a TensorRT engine after the ONNX model.")
    trt_model_path: str = key("${output_dir}/tensorrt", "Folder of the TensorRT engine.", affects_output=False)
    trt_min_batch: int = key(1, "Smallest batch of the engine.", gt=0)
    trt_opt_batch: int = key(16, "Batch the engine is tuned for.", gt=0)
    trt_max_batch: int = key(64, "Largest batch of the engine.", gt=0)
    trt_min_seq_len: int = key(3, "Shortest sequence of the engine.", gt=0)
    trt_opt_seq_len: int = key(128, "Sequence length the engine is tuned for.", gt=0)
    trt_max_seq_len: int | None = key(None, "Longest sequence of the engine; null takes the model's own.", gt=0)
    parity_texts: int = key(
        64, "Texts (of a reranker: pairs) compared between torch and ONNX, at three batch sizes.", ge=8
    )

    def problems(self) -> list[tuple[str, str]]:
        found = []
        if not self.trt_min_batch <= self.trt_opt_batch <= self.trt_max_batch:
            found.append(("trt_opt_batch", "must lie between trt_min_batch and trt_max_batch"))
        if self.trt_min_seq_len > self.trt_opt_seq_len:
            found.append(("trt_opt_seq_len", f"must be >= trt_min_seq_len ({self.trt_min_seq_len})"))
        if self.trt_max_seq_len is not None and self.trt_max_seq_len < self.trt_opt_seq_len:
            found.append(("trt_max_seq_len", f"must be >= trt_opt_seq_len ({self.trt_opt_seq_len})"))
        if self.export_to_trt and self.trt_model_path == self.onnx_export_path:
            found.append(("trt_model_path", "is onnx_export_path: the engine would replace the ONNX model"))
        return found

    def unused_inputs(self) -> set[str]:
        return set() if self.quant_cfg else {"calibration_data_path"}


@dataclass(kw_only=True)
class EmbedExportConfig(ExportConfig):
    """export for bi-encoders: pooling and normalisation inside the graph, output `embeddings`."""

    parity_min_cosine: float = key(
        0.9999, "Lowest cosine between torch and ONNX vectors; lower fails the stage. fp16: at most 0.999.", gt=0, le=1
    )
    quant_min_cosine: float = key(
        0.95,
        "The same for an 8-bit model; lower does not publish that model, the fp32 one stays.",
        gt=0,
        le=1,
    )


@dataclass(kw_only=True)
class RerankExportConfig(ExportConfig):
    """export for cross-encoders: output `logits`."""

    run_dir: str = key("./output/rerank", "Folder that all stages of this run share.", affects_output=False)
    parity_data_path: str | None = key(
        "${run_dir}/stage1_prep/eval_beir",
        "BEIR folder whose texts the parity check uses; null takes a few built-in texts.",
        reads="prep",
        optional_input=True,
    )
    export_to_trt: bool = key(False, "Build a TensorRT engine after the ONNX model.")
    trt_opt_seq_len: int = key(256, "Sequence length the engine is tuned for.", gt=0)
    parity_max_logit_diff: float = key(
        0.001,
        "Largest difference between torch's and ONNX's logit, in standard deviations of torch's logits; more fails the "
        "stage. fp16: at least 0.02.",
        gt=0,
    )
    quant_max_logit_diff: float = key(
        0.5, "The same for an 8-bit model; more does not publish that model, the fp32 one stays.", gt=0
    )
    calibration_data_path: str | None = key(
        "${run_dir}/stage1_prep/train.json",
        "Training file whose questions and passages calibrate an 8-bit model; null takes passages of parity_data_path.",
        reads="prep",
        optional_input=True,
    )
    calibration_query: str = key(
        "what information is relevant to this query?", "Query of the calibration pairs where there is no training file."
    )
    prompt_template: str | None = key(
        PROMPT_TEMPLATE, "How query and passage become one text; the model's own contract comes first."
    )

    def problems(self) -> list[tuple[str, str]]:
        return super().problems() + template_problems(self.prompt_template)
