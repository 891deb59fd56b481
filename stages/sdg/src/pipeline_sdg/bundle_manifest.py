"""`multi_doc_manifest`: which documents the user wants together."""

from __future__ import annotations

import json
import logging
import posixpath
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from pipeline.errors import PipelineError

log = logging.getLogger("pipeline")

_LISTED_AT_MOST = 10
_FIX = "write a list of bundles: [[a.md, b.md], [c.md, d.md]], or {docs: [a.md, b.md]} for each"


def manifest_bundles(names: Sequence[str], manifest: str | None, most: int) -> list[tuple[int, ...]]:
    """The bundles of the manifest as places in `names`, in its order; without a manifest there are none.

    It is JSON or YAML: a list of bundles, or {bundles: that list}; a bundle is a list of names, or {docs: that list}.
    Names that the corpus does not have, or that stand in the manifest twice, are left out and said.

    Raises:
        PipelineError: it cannot be read, has another shape, or has a bundle of more than `most` documents.
    """
    if manifest is None:
        return []
    path = Path(manifest).expanduser()
    places = {name: place for place, name in enumerate(names)}
    seen: set[str] = set()
    unknown: list[str] = []
    repeated: list[str] = []
    bundles = []
    for number, wanted in enumerate(_entries(path), 1):
        bundle = []
        for given in wanted:
            name = given if given in places else posixpath.normpath(given)
            if name not in places:
                unknown.append(given)
            elif name in seen:
                repeated.append(given)
            else:
                seen.add(name)
                bundle.append(places[name])
        if len(bundle) > most:
            raise PipelineError(
                f"{path}: bundle {number} has {len(bundle)} documents ({_shown(wanted)}), "
                f"max_docs_per_bundle is {most}",
                fix="split it, or raise max_docs_per_bundle",
            )
        if bundle:
            bundles.append(tuple(bundle))
    _warn(path, "not among the usable documents of the corpus (write them relative to corpus_dir)", unknown)
    _warn(path, "in it twice, of which the first counts", repeated)
    return bundles


def _entries(path: Path) -> list[list[str]]:
    value = _read(path)
    if isinstance(value, dict):
        value = value.get("bundles")
    if not isinstance(value, list):
        raise PipelineError(f"{path}: holds no list of bundles", fix=_FIX)
    return [_names(path, number, entry) for number, entry in enumerate(value, 1)]


def _names(path: Path, number: int, entry: Any) -> list[str]:
    names = entry.get("docs") if isinstance(entry, dict) else entry
    if not isinstance(names, list):
        raise PipelineError(f"{path}: bundle {number} is no list of documents: {_value(entry)}", fix=_FIX)
    for name in names:
        if not isinstance(name, str) or not name.strip():
            raise PipelineError(
                f"{path}: bundle {number} names a document that is no text: {_value(name)}",
                fix="write the file's path below corpus_dir, in quotes",
            )
    return names


def _read(path: Path) -> Any:
    fix = "correct the file, or set multi_doc_manifest=null"
    try:
        text = path.read_text(encoding="utf-8-sig")
        return json.loads(text) if path.suffix.lower() == ".json" else yaml.safe_load(text)
    except OSError as error:
        raise PipelineError(f"multi_doc_manifest: cannot read {path}: {error.strerror}", fix=fix) from error
    except (ValueError, yaml.YAMLError, RecursionError) as error:
        raise PipelineError(
            f"multi_doc_manifest: {path} is neither JSON nor YAML: {_reason(error)}", fix=fix
        ) from error


def _reason(error: Exception) -> str:
    """With its place, on one line."""
    return " ".join(str(error).split()) or type(error).__name__


def _value(value: Any) -> str:
    return repr(value)[:80]


def _warn(path: Path, what: str, names: list[str]) -> None:
    if names:
        log.warning(f"warning: {path}: {len(names)} names left out, {what}: {_shown(names)}")


def _shown(names: Sequence[str]) -> str:
    more = f" and {len(names) - _LISTED_AT_MOST} more" if len(names) > _LISTED_AT_MOST else ""
    return ", ".join(names[:_LISTED_AT_MOST]) + more
