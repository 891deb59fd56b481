"""Documents cut to passages, and the windows of passages that one LLM call sees."""

from pipeline_sdg.chunking.passages import Chunk, Passage, chunk_document, title_of
from pipeline_sdg.chunking.windows import (
    Coverage,
    Window,
    coverage,
    in_order,
    lines,
    pairs_of,
    sections,
    spread,
    windows_of,
)

__all__ = [
    "Chunk",
    "Coverage",
    "Passage",
    "Window",
    "chunk_document",
    "coverage",
    "in_order",
    "lines",
    "pairs_of",
    "sections",
    "spread",
    "title_of",
    "windows_of",
]
