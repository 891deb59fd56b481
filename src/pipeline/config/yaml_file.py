"""Read one YAML file and remember on which line every key stands."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipeline.errors import PipelineError


def read_yaml(path: Path) -> tuple[dict[str, Any], dict[str, int]]:
    """Return the mapping and the line (1-based) of each top-level key.

    Raises:
        PipelineError: the file is not readable, not YAML, or not a mapping; the message names file and line.
    """
    import yaml

    try:
        text = path.read_text(encoding="utf-8")
        values = yaml.safe_load(text) or {}
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except OSError as error:
        raise PipelineError(f"cannot read the configuration {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise PipelineError(f"{path}: not UTF-8 text (byte {error.start})") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        raise PipelineError(f"{where}: not valid YAML: {getattr(error, 'problem', error)}") from error
    if not isinstance(values, dict):
        raise PipelineError(f"{path}: must hold `key: value` lines, found a {type(values).__name__}")
    lines: dict[str, int] = {}
    for key_node, _ in node.value if node is not None else []:
        if key_node.value in lines:
            raise PipelineError(f"{path}:{key_node.start_mark.line + 1}: {key_node.value} stands here twice")
        lines[key_node.value] = key_node.start_mark.line + 1
    return values, lines
