"""YAML -> overrides -> interpolation -> the stage's dataclass, with every error reported at once."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from pipeline.config.coerce import NotThisType, coerce
from pipeline.config.yaml_file import read_yaml
from pipeline.errors import MISSING, ConfigError, ConfigProblem, PipelineError
from pipeline.home import stage_config_dir, workspace
from pipeline.schemas import schema_of
from pipeline.schemas.common import StageConfig
from pipeline.schemas.fields import Key, canonical, keys_of
from pipeline.schemas.mine import KEPT_WITH_THE_MODEL, MineConfig

Config = TypeVar("Config", bound=StageConfig)
COMMAND_LINE = "command line"


@dataclass
class Resolved(Generic[Config]):
    """A checked configuration and where each value came from."""

    family: str
    stage: str
    profile: str
    config: Config
    origins: dict[str, str]
    explicit: frozenset[str] = frozenset()
    """Keys a person set: on the command line, or in a YAML file of their own."""
    command_line: frozenset[str] = frozenset()
    secrets: dict[str, str] = field(default_factory=dict)
    """Environment variables for the stage process; never written."""

    def values(self) -> dict[str, Any]:
        """The configuration as plain data, without secrets."""
        specs = keys_of(type(self.config))
        return {
            name: value for name, value in dataclasses.asdict(self.config).items() if not specs[name].spec.secret_env
        }


def profiles(family: str, stage: str) -> dict[str, Path]:
    """The named configurations of a stage: {name: file}."""
    folder = stage_config_dir(family, stage)
    return {path.stem: path for path in sorted(folder.glob("*.y*ml"))}


def is_file_name(name: str) -> bool:
    """Whether `-c NAME|PATH` was given a path."""
    return "/" in name or name.endswith((".yaml", ".yml"))


def profile_path(family: str, stage: str, name: str) -> Path:
    """`default` -> the shipped file; anything with a slash or a YAML ending is a path of the user's."""
    if is_file_name(name):
        path = Path(name).expanduser()
        if not path.is_file():
            raise PipelineError(f"configuration {name}: no such file", fix="give -c the path of an existing YAML file")
        return path
    known = profiles(family, stage)
    if name not in known:
        near = difflib.get_close_matches(name, known, 1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise PipelineError(
            f"{family} {stage} has no configuration {name!r}: looked in {stage_config_dir(family, stage)}",
            fix=f"{hint}known: {', '.join(known)}; or give the path of a YAML file",
        )
    return known[name]


def config_files(family: str, stage: str, name: str) -> list[Path]:
    """The files that `-c NAME|PATH` means for a stage: what it `extends` first, itself last."""
    return [path for path, _, _ in _layers(family, stage, profile_path(family, stage, name))]


def split_override(text: str) -> tuple[str, str]:
    """`key=value`, split at the first `=`; the value is kept verbatim."""
    name, _, value = text.partition("=")
    return name.strip().lstrip("+"), value


def resolve(family: str, stage: str, profile: str = "default", overrides: Iterable[str] = ()) -> Resolved[Any]:
    """Load, override, interpolate and check one stage's configuration.

    Raises:
        ConfigError: every unknown key, bad value and broken rule, each with its origin.
        PipelineError: the file itself cannot be read.
    """
    path = profile_path(family, stage, profile)
    settled = settle(schema_of(family, stage), _layers(family, stage, path), overrides, f"{family} {stage} ({profile})")
    return Resolved(family, stage, profile, **settled)


def settle(
    schema: type[StageConfig],
    layers: Iterable[tuple[Path, dict[str, Any], dict[str, int]]],
    overrides: Iterable[str],
    title: str,
    shipped: bool = True,
) -> dict[str, Any]:
    """The fields of `Resolved` that follow from a schema, files (path, values, line of each key) and overrides.

    With `shipped`, files inside the workspace are ours: what they say is nobody's own choice.

    Raises:
        ConfigError: every unknown key, bad value and broken rule, each with its origin; `title` names what failed.
    """
    keys = keys_of(schema)
    values: dict[str, Any] = {name: item.default for name, item in keys.items()}
    origins = {name: "default" for name in keys}
    problems: list[ConfigProblem] = []
    explicit: set[str] = set()

    for source, data, lines in layers:
        own = not shipped or workspace() not in source.resolve().parents
        for said, value in data.items():
            name, origin = canonical(schema, said), f"{_shown(source)}:{lines[said]}"
            _take(name, value, origin, keys, values, origins, problems)
            if own:
                explicit.add(name)

    command_line: set[str] = set()
    for text in overrides:
        said, value = split_override(text)
        name = canonical(schema, said)
        _take(name, value, COMMAND_LINE, keys, values, origins, problems)
        command_line.add(name.split(".")[0])

    values = _interpolate(values, origins, problems)
    typed = _typed(keys, values, origins, problems)
    secrets = {}
    for name, item in keys.items():
        if item.spec.secret_env and typed.get(name):
            secrets[item.spec.secret_env] = typed.pop(name)
    config = schema(**typed)  # keys with a bad value keep their default, so that rules over several keys still run
    problems += [
        ConfigProblem(name, getattr(config, name), text, origins[name])
        for name, text in config.problems()
        if not any(problem.key == name for problem in problems)
    ]
    if problems:
        raise ConfigError(title, problems)
    return {
        "config": config,
        "origins": origins,
        "explicit": frozenset(explicit | command_line),
        "command_line": frozenset(command_line),
        "secrets": secrets,
    }


def resolve_mine(path: Path | None, overrides: Iterable[str]) -> dict[str, Any]:
    """The configuration of `pipeline data mine`: the fields of `Resolved` that `settle` gives.

    A file may have the keys at its top or, as the documented miner has them, under `mining`; `dist_env` beside it says
    `timeout_minutes`. On the command line `mining.KEY=VALUE` is KEY=VALUE.

    Raises:
        ConfigError, PipelineError: as for `resolve`; a model's own settings (pooling, l2_normalize) are refused.
    """
    given = [text.removeprefix("--").removeprefix("mining.") for text in overrides]
    layers = [_mining_layer(path)] if path else []
    names = [split_override(text)[0] for text in given] + [name for _, data, _ in layers for name in data]
    for name in KEPT_WITH_THE_MODEL:
        if name in names:
            raise PipelineError(
                f"{name} is kept with the model and cannot be chosen while mining",
                fix=f"leave {name} out; to change it, train or export the model with another value",
            )
    return settle(MineConfig, layers, given, "data mine", shipped=False)


_MINING_SECTIONS: dict[str, dict[str, str | None]] = {
    "mining": {},
    "dist_env": {"timeout_minutes": "dist_timeout_minutes", "backend": None},
}
"""Section of the documented file -> its keys under another name here; None: the machine decides."""


def _mining_layer(path: Path) -> tuple[Path, dict[str, Any], dict[str, int]]:
    if not path.is_file():
        raise PipelineError(f"configuration {path}: no such file", fix="give -c the path of an existing YAML file")
    data, lines = read_yaml(path)
    for section, names in _MINING_SECTIONS.items():
        if section not in data:
            continue
        inner = data.pop(section)
        if not isinstance(inner, dict) or not all(isinstance(name, str) for name in inner):
            raise PipelineError(f"{path}:{lines[section]}: {section} must hold `key: value` lines")
        renamed = {names.get(name, name): value for name, value in inner.items() if names.get(name, name) is not None}
        lines |= dict.fromkeys(renamed, lines[section])
        data |= renamed
    return path, data, lines


def _layers(family: str, stage: str, path: Path, seen: tuple[Path, ...] = ()) -> list[tuple[Path, dict, dict]]:
    """The file and what it `extends`, base first."""
    if path in seen:
        raise PipelineError(f"{path}: `extends` goes round in a circle: {' -> '.join(str(item) for item in seen)}")
    data, lines = read_yaml(path)
    base = data.pop("extends", None)
    if base is None:
        return [(path, data, lines)]
    parent = path.parent / f"{base}.yaml" if "/" not in str(base) else path.parent / str(base)
    if not parent.is_file():
        parent = profile_path(family, stage, str(base))
    return [*_layers(family, stage, parent, (*seen, path)), (path, data, lines)]


def _take(
    name: str,
    value: Any,
    origin: str,
    keys: dict[str, Key],
    values: dict[str, Any],
    origins: dict[str, str],
    problems: list[ConfigProblem],
) -> None:
    top, _, inner = name.partition(".")
    if top not in keys:
        near = difflib.get_close_matches(top, keys, 1)
        hint = f"did you mean {near[0]}?" if near else "see --help for the keys there are"
        problems.append(ConfigProblem(name, value, f"unknown key; {hint}", origin))
        return
    if inner:
        if not isinstance(values[top], dict):
            problems.append(ConfigProblem(name, value, f"{top} has no inner keys", origin))
            return
        values[top] = {**values[top], inner: value}
    else:
        values[top] = value
    origins[top] = origin


def _interpolate(values: dict[str, Any], origins: dict[str, str], problems: list[ConfigProblem]) -> dict[str, Any]:
    """Resolve `${key}`, `${oc.env:VAR,default}` and `${workspace:path}`; only when there is anything to resolve."""
    if "${" not in repr(values):
        return values
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    OmegaConf.register_resolver("workspace", lambda path: str(workspace() / path), replace=True)
    tree = OmegaConf.create(values)
    result = {}
    for name in values:
        try:
            node = tree[name]
            result[name] = OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node
        except OmegaConfBaseException as error:
            text = str(error).strip().splitlines()[0]
            problems.append(ConfigProblem(name, values[name], f"cannot be filled in: {text}", origins[name]))
            result[name] = MISSING
    return result


def _typed(
    keys: dict[str, Key], values: dict[str, Any], origins: dict[str, str], problems: list[ConfigProblem]
) -> dict[str, Any]:
    typed = {}
    for name, item in keys.items():
        raw = values[name]
        if raw is MISSING:
            continue
        try:
            typed[name] = coerce(item, raw)
        except NotThisType as error:
            problems.append(ConfigProblem(name, raw, str(error), origins[name]))
    return typed


def _shown(path: Path) -> str:
    try:
        return str(path.resolve().relative_to(workspace()))
    except ValueError:
        return str(path)
