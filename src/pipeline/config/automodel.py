"""From a retrieval configuration of NVIDIA AutoModel to a configuration of our finetune stage.

Source of the format: NVIDIA NeMo AutoModel, "Retrieval Fine-Tuning" and "Embedding Model Fine-Tuning" guides
(https://docs.nvidia.com/nemo/automodel), both the present layout (`dataset:` beside `dataloader:`) and the older one.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.config.automodel_keys import (
    DEFAULTS,
    KEYS,
    MODELS,
    NULL_DEFAULTS,
    RECIPES,
    SECTIONS,
    TWINS,
    No,
    Rule,
    Same,
    To,
)
from pipeline.config.coerce import NotThisType, coerce
from pipeline.config.yaml_file import read_yaml
from pipeline.errors import PipelineError
from pipeline.schemas import schema_of
from pipeline.schemas.fields import keys_of

_WHOLE = {"data_dir_list", "peft", "ci"}
"""Keys whose value is read as one piece."""


@dataclass(frozen=True)
class Converted:
    """One key of ours, its value, and the key it came from (or why it is there)."""

    key: str
    value: Any
    origin: str


@dataclass(frozen=True)
class Left:
    """A key of theirs that became none of ours, its value, and the reason."""

    key: str
    value: Any
    reason: str


@dataclass
class Conversion:
    """Every key of the file is in exactly one of the three lists.

    Attributes:
        family: `embed` or `rerank`.
        converted: what the new file says.
        needless: what we do anyway.
        lost: what cannot be said here, and unknown keys.
    """

    source: str
    family: str
    converted: dict[str, Converted] = field(default_factory=dict)
    needless: list[Left] = field(default_factory=list)
    lost: list[Left] = field(default_factory=list)


def convert_file(path: Path) -> Conversion:
    """Read an AutoModel configuration and convert it.

    Raises:
        PipelineError: not readable, not YAML, not a retrieval recipe, or without a model or training data.
    """
    document, _ = read_yaml(path)
    keys = _flatten(document, path)
    conversion = Conversion(str(path), _family(keys, path))
    for name in sorted(keys, key=_precedence):
        _take(conversion, name, keys[name], keys)
    _complete(conversion, keys)
    _drop_what_breaks_rules(conversion)
    missing = [theirs for theirs, ours in _REQUIRED.items() if ours not in conversion.converted]
    if missing:
        raise PipelineError(
            f"{path}: says no usable {' and no '.join(missing)}",
            fix="add it to the file: values given on AutoModel's command line are not in it",
        )
    return conversion


_REQUIRED = {"model.pretrained_model_name_or_path": "base_model", "dataset.data_dir_list": "train_data_path"}


def _flatten(document: dict[Any, Any], path: Path) -> dict[str, Any]:
    """`{"optimizer": {"lr": 1}}` -> `{"optimizer.lr": 1}`, both layouts under the names of the present one."""
    flat: dict[str, Any] = {}
    for name, value in _leaves(document, ""):
        for old, new in (("validation_dataloader.", "validation_dataset."), ("dataloader.", "dataset.")):
            if name.startswith(old + "dataset."):
                name = new + name.removeprefix(old + "dataset.")
        if name in flat:
            raise PipelineError(f"{path}: {name} stands here twice, beside and inside `dataloader`", fix="delete one")
        flat[name] = value
    return flat


def _precedence(name: str) -> int:
    """Where two keys say the same thing, the first counts: the dataset's own before the copy at the top level."""
    return 1 if "." not in name else 2 if name.startswith("validation_dataset.") and "n_passages" in name else 0


def _leaves(value: Any, name: str) -> Iterator[tuple[str, Any]]:
    if not isinstance(value, dict) or not value or name.rsplit(".", 1)[-1] in _WHOLE:
        yield name, value
        return
    for inner, item in value.items():
        yield from _leaves(item, f"{name}.{inner}" if name else str(inner))


def _family(keys: dict[str, Any], path: Path) -> str:
    if any(name.startswith("mining.") for name in keys):
        raise PipelineError(
            f"{path}: configures the mining of negatives, not a training", fix="convert the recipe's YAML"
        )
    recipe = keys.get("recipe", keys.get("recipe._target_"))
    target = keys.get("model._target_")
    of_recipe = RECIPES.get(str(recipe).rsplit(".", 1)[-1])
    of_model = MODELS.get(".".join(str(target).rsplit(".", 2)[-2:]))
    if recipe is not None and of_recipe is None:
        raise PipelineError(f"{path}: recipe {recipe!r} is unknown", fix=f"known: {', '.join(RECIPES)}")
    if target is not None and of_model is None:
        raise PipelineError(f"{path}: model._target_ {target!r} is unknown", fix=f"known: {', '.join(MODELS)}")
    if of_recipe and of_model and of_recipe != of_model:
        raise PipelineError(f"{path}: recipe {recipe!r} and model._target_ {target!r} contradict each other")
    family = of_recipe or of_model
    if family is None:
        raise PipelineError(
            f"{path}: no retrieval recipe: neither `recipe` nor `model._target_` says which",
            fix=f"recipe: {' | '.join(RECIPES)}",
        )
    return family


def _take(conversion: Conversion, name: str, value: Any, keys: dict[str, Any]) -> None:
    """Put one key of theirs into one of the three lists."""
    if name in TWINS:
        twin, how = TWINS[name]
        same = twin not in keys or keys[twin] == value
        (conversion.needless if same else conversion.lost).append(Left(name, value, how))
        return
    if isinstance(value, str) and "${" in value:
        conversion.lost.append(Left(name, value, "refers to something outside this key: write the value itself"))
        return
    rule = _rule(name)
    if value in (None, {}) and not isinstance(rule, To):
        conversion.needless.append(Left(name, value, "nothing is set"))
    elif rule is None:
        near = difflib.get_close_matches(name, KEYS, 1, 0.85)
        conversion.lost.append(Left(name, value, f"unknown key; did you mean {near[0]}?" if near else "unknown key"))
    elif isinstance(rule, No):
        conversion.lost.append(Left(name, value, rule.why))
    elif isinstance(rule, Same):
        compared = str(value).rsplit(".", 1)[-1] if name.endswith("_target_") else value
        same = not rule.values or compared in rule.values
        (conversion.needless if same else conversion.lost).append(Left(name, value, rule.how if same else rule.why))
    else:
        _set(conversion, name, value, rule)


def _rule(name: str) -> Rule | None:
    return KEYS.get(name) or next((rule for start, rule in SECTIONS.items() if name.startswith(start)), None)


def _set(conversion: Conversion, name: str, value: Any, rule: To) -> None:
    """Take over a value, if our key exists in this family and can hold it."""
    ours = keys_of(schema_of(conversion.family, "finetune")).get(rule.key)
    if ours is None:
        conversion.lost.append(Left(name, value, f"{conversion.family} has no such setting"))
        return
    changed = _sources(value) if name.endswith("data_dir_list") else rule.change(value) if value is not None else None
    if changed is None and value is not None:
        conversion.lost.append(Left(name, value, rule.why))
        return
    try:
        changed = coerce(ours, changed)
    except NotThisType as error:
        conversion.lost.append(Left(name, value, f"{rule.key} {error}"))
        return
    before = conversion.converted.get(rule.key)
    if before and before.value != changed:
        conversion.lost.append(Left(name, value, f"{before.origin} says {before.value!r} already"))
    elif before:
        conversion.needless.append(Left(name, value, f"the same as {before.origin}"))
    else:
        conversion.converted[rule.key] = Converted(rule.key, changed, name)


def _sources(value: Any) -> Any:
    """One source stays one; an entry that samples nothing becomes its path."""
    entries = value if isinstance(value, list) else [value]
    plain = [
        item["path"] if isinstance(item, dict) and set(item) <= {"path", "num_samples"} and "path" in item
        and item.get("num_samples") is None else item
        for item in entries
    ]  # fmt: skip
    return plain[0] if len(plain) == 1 and isinstance(plain[0], str) else plain or None


def _complete(conversion: Conversion, keys: dict[str, Any]) -> None:
    """What their trainer does without a key, and ours only with one."""
    ours = conversion.converted

    def add(key: str, value: Any, origin: str) -> None:
        ours[key] = Converted(key, value, origin)

    for key, value in DEFAULTS[conversion.family].items():
        if key not in ours:
            add(key, value, "AutoModel's default")
    for key in NULL_DEFAULTS:
        if key not in ours:
            add(key, None, "AutoModel's default")
    if "val_data_path" not in ours:
        add("val_data_path", None, "no validation data in the file")
    if "cross_rank_negatives" in ours:
        add("in_batch_negatives", ours["cross_rank_negatives"].value, ours["cross_rank_negatives"].origin)
    if "l2_normalize" in ours and not ours["l2_normalize"].value and ours["temperature"].value != 1.0:
        conversion.lost.append(Left("temperature", ours["temperature"].value, "has no effect without l2_normalize"))
        add("temperature", 1.0, "AutoModel divides only normalised scores")
    if any(name.startswith("wandb.") for name in keys) and "wandb" not in ours:
        add("wandb", True, "the section `wandb`")


def _drop_what_breaks_rules(conversion: Conversion) -> None:
    """Rules over several keys: take out what breaks one, so that the new file can be used."""
    schema = schema_of(conversion.family, "finetune")
    while True:
        values = {key: item.value for key, item in conversion.converted.items()}
        broken = [(key, text) for key, text in schema(**values).problems() if key in values]
        if not broken:
            return
        key, text = broken[0]
        item = conversion.converted.pop(key)
        conversion.lost.append(Left(item.origin, item.value, f"{key} {text}"))
