"""Is a stage's work still true? Decided from its manifest, its configuration and its inputs."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from pipeline.config.resolve import Resolved
from pipeline.errors import PipelineError
from pipeline.run.lock import holder_text, is_locked
from pipeline.run.manifest import STARTED, Manifest
from pipeline.run.snapshot import Snapshot, differences, snapshot
from pipeline.schemas.fields import keys_of


class State(StrEnum):
    DONE = "done"
    STALE = "stale"
    PARTIAL = "partial"
    MISSING = "missing"
    RUNNING = "running"


@dataclass
class Status:
    """A stage's state and the reasons for it, in words."""

    stage: str
    folder: Path
    state: State
    reasons: list[str] = field(default_factory=list)
    manifest: Manifest | None = None


def stage_folder(resolved: Resolved[Any]) -> Path:
    return Path(resolved.config.folder())


def input_keys(resolved: Resolved[Any]) -> dict[str, str]:
    """Input keys that are set: key -> the stage that makes it ("user" for a person)."""
    specs = keys_of(type(resolved.config))
    unused = resolved.config.unused_inputs()
    return {
        name: item.spec.reads
        for name, item in specs.items()
        if item.spec.reads and getattr(resolved.config, name) and name not in unused
    }


def input_paths(resolved: Resolved[Any], name: str) -> list[Path]:
    """The local paths a key names. A hub id or an `embedded:` model names none."""
    named = _may_be_name(resolved, name)
    places = (place for place in _places(resolved, name) if not (named and _is_name(place)))
    return [Path(place).expanduser() for place in places if not is_remote(place)]


def remote_places(resolved: Resolved[Any], name: str) -> list[str]:
    """What a key names that is no local path."""
    return [place for place in _places(resolved, name) if is_remote(place)]


def _may_be_name(resolved: Resolved[Any], name: str) -> bool:
    return keys_of(type(resolved.config))[name].spec.or_name


def _is_name(place: str) -> bool:
    return "/" not in place


def _places(resolved: Resolved[Any], name: str) -> list[str]:
    return [_place(item) for item in _entries(getattr(resolved.config, name))]


def _entries(value: Any) -> list[Any]:
    """What an input key names, one by one: it may hold one, a list, or names with one each."""
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else [value]


def _place(entry: Any) -> str:
    """Where an entry points: it is a path or a name, or says one under `path` beside settings of its own."""
    return str(entry.get("path", "") if isinstance(entry, dict) else entry)


def _beside_paths(value: Any, or_name: bool) -> list[Any]:
    """What an input key says beyond local paths: data sets of the hub, shipped names, the settings beside a path, and
    under which name it stands."""
    said: list[Any] = []
    for name, entry in value.items() if isinstance(value, dict) else ((None, entry) for entry in _entries(value)):
        place = _place(entry)
        settings = {key: item for key, item in entry.items() if key != "path"} if isinstance(entry, dict) else {}
        is_said = place.startswith(_HUB) or (or_name and _is_name(place))
        said.append([name, place if is_said else None, settings])
    return said


def is_remote(value: str) -> bool:
    """Hub ids (`org/name`), `hf://…` and `embedded:…` are names, not paths."""
    if ":" in value.split("/")[0] or value.startswith(_HUB):
        return True
    looks_like_path = value.startswith((".", "/", "~")) or Path(value).exists() or Path(value).suffix in _FILE_ENDINGS
    return not looks_like_path and value.count("/") == 1


_HUB = "hf://"
_FILE_ENDINGS = {".json", ".jsonl", ".parquet", ".csv", ".tsv", ".txt", ".md"}


def take_inputs(resolved: Resolved[Any], known: dict[str, Snapshot | None] | None = None) -> dict[str, Snapshot | None]:
    """Snapshot every input of a stage. `known` spares hashing files whose size and time did not move."""
    taken: dict[str, Snapshot | None] = {}
    for name in input_keys(resolved):
        paths = input_paths(resolved, name)
        if len(paths) == 1:
            taken[name] = snapshot(paths[0], (known or {}).get(name))
        elif paths:
            merged: Snapshot = {}
            for number, path in enumerate(paths):
                files = snapshot(path) or {}
                merged |= {f"{number}/{path.name}/{inner}": item for inner, item in files.items()}
            taken[name] = merged
    return taken


def status_of(resolved: Resolved[Any]) -> Status:
    """Look at one stage: done, stale (and why), partial, missing or running."""
    folder = stage_folder(resolved)
    stage = resolved.stage
    if is_locked(folder):
        return Status(stage, folder, State.RUNNING, [holder_text(folder)])
    try:
        manifest = Manifest.load(folder)
    except PipelineError as error:
        return Status(stage, folder, State.PARTIAL, [error.message])
    if (folder / STARTED).exists():
        return Status(stage, folder, State.PARTIAL, ["a run began and did not finish"], manifest)
    if manifest is None:
        return Status(stage, folder, State.MISSING)
    reasons = [f"its last run failed: {manifest.failure}"] if manifest.failure else []
    reasons += _version_reasons(manifest, resolved) + _config_reasons(manifest, resolved)
    reasons += _input_reasons(manifest, resolved) + _output_reasons(manifest, folder)
    return Status(stage, folder, State.STALE if reasons else State.DONE, reasons, manifest)


def _version_reasons(manifest: Manifest, resolved: Resolved[Any]) -> list[str]:
    now = resolved.config.version
    return [] if manifest.stage_version == now else [f"stage version {manifest.stage_version} -> {now}"]


def _config_reasons(manifest: Manifest, resolved: Resolved[Any]) -> list[str]:
    reasons = []
    for name, item in keys_of(type(resolved.config)).items():
        if not item.spec.affects_output or item.spec.secret_env:
            continue
        before, now = manifest.config.get(name, item.default), getattr(resolved.config, name)
        said_before, said_now = (_beside_paths(value, item.spec.or_name) for value in (before, now))
        if item.spec.reads and input_paths(resolved, name) and said_before == said_now:
            continue  # paths are compared by content, so that a moved run directory stays fresh
        if before != now:
            reasons.append(f"{name} {before} -> {now}")
    return reasons


def _input_reasons(manifest: Manifest, resolved: Resolved[Any]) -> list[str]:
    reasons = []
    for name, now in take_inputs(resolved, manifest.inputs).items():
        changed = differences(manifest.inputs.get(name), now)
        if changed:
            more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
            reasons.append(f"{name} changed ({changed[0]}{more})")
    return reasons


def _output_reasons(manifest: Manifest, folder: Path) -> list[str]:
    for name, item in manifest.outputs.items():
        path = folder / name
        if not path.is_file():
            return [f"output {name} is gone"]
        if path.stat().st_size != item["size"]:
            return [f"output {name} was changed by hand"]
    return []
