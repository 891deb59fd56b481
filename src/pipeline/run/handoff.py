"""The file through which the command line hands a checked configuration to a stage's process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipeline.config.coerce import NotThisType, coerce
from pipeline.config.resolve import Resolved
from pipeline.config.yaml_file import read_yaml
from pipeline.errors import ConfigError, ConfigProblem, PipelineError
from pipeline.run.files import write_text
from pipeline.schemas import schema_of
from pipeline.schemas.fields import keys_of


def write_handoff(resolved: Resolved[Any], path: Path) -> Path:
    """Write everything the stage needs to start again by hand; secrets are left out."""
    import yaml

    head = {
        "family": resolved.family,
        "stage": resolved.stage,
        "profile": resolved.profile,
        "explicit": sorted(resolved.explicit),
        "command_line": sorted(resolved.command_line),
    }
    document = {"stage": head, "config": resolved.values()}
    return write_text(path, yaml.safe_dump(document, sort_keys=False, allow_unicode=True))


def read_handoff(path: Path) -> Resolved[Any]:
    """Read and check it again: the file may have been edited, or written by hand."""
    document, _ = read_yaml(path)
    try:
        head, values = document["stage"], document["config"]
        schema = schema_of(head["family"], head["stage"])
    except (KeyError, TypeError) as error:
        raise PipelineError(f"{path}: not a configuration written by `pipeline`: {error}") from error
    typed, problems = {}, []
    for name, item in keys_of(schema).items():
        if name in values:
            try:
                typed[name] = coerce(item, values[name])
            except NotThisType as error:
                problems.append(ConfigProblem(name, values[name], str(error), str(path)))
    if problems:
        raise ConfigError(f"{head['family']} {head['stage']} ({path})", problems)
    return Resolved(
        head["family"],
        head["stage"],
        head["profile"],
        schema(**typed),
        {},
        explicit=frozenset(head.get("explicit", ())),
        command_line=frozenset(head.get("command_line", ())),
    )
