"""Groups of documents that the user knows to belong together (`groups_json`).

{"exact": {"groups": {"g1": ["guide/pump.md", "old/pump.md"]}}, "semantic": {"clusters": {"c1": [...]}}}
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path, PurePosixPath
from posixpath import normpath
from typing import Any, Literal

from pipeline.errors import PipelineError
from pipeline.run.files import read_json
from pipeline_prep.document_groups import Tie
from pipeline_prep.union_find import UnionFind

KINDS = ("exact", "fuzzy", "semantic")
FORM = '{"exact" | "fuzzy" | "semantic": {"groups" | "clusters": {"<id>": ["<document>", …]}}}'

Listed = dict[str, set[str]]
"""Name of a document as listed -> the groups it stands in."""


def ties_of_groups(
    files: Sequence[str],
    strategy: Literal["dedupped", "cluster"],
    documents: set[str],
    frozen: Iterable[str] = (),
) -> list[Tie]:
    """Sets of `documents`, and of those of a `frozen` test set, that stand in one group, sorted.

    A document is found by its normalised path, else without its ending, else by its base name without ending. With
    `dedupped` groups that share a listed document are one; with `cluster` such a document is an error.

    Raises:
        PipelineError: a file is malformed, a document stands in two clusters, a name fits documents of several groups,
            or no listed document is one of ours.
    """
    listed: Listed = {}
    for path in map(Path, files):
        for group, names in _groups(path):
            for name in names:
                listed.setdefault(_path(name), set()).add(group)
    if strategy == "cluster":
        _no_overlap(listed)
    joined = UnionFind(group for groups in listed.values() for group in groups)
    for groups in listed.values():
        joined.join(sorted(groups))

    def group_of(name: str) -> str:
        return joined.root(min(listed[name]))

    matches = _matches(sorted(documents), listed, group_of)
    if not matches:
        raise PipelineError(
            f"groups_json: none of the {len(listed):,} documents in {', '.join(files)} is one of the "
            f"{len(documents):,} with questions, such as {min(documents)!r}",
            fix="list documents by the file_name that the records give them",
        )
    # Matched apart: a path of the test set takes no name away from a document of ours.
    matches |= _matches(sorted(set(frozen) - documents), listed, group_of)
    found: dict[str, list[str]] = {}
    for document, name in sorted(matches.items()):
        found.setdefault(group_of(name), []).append(document)
    return sorted(tuple(group) for group in found.values() if len(group) > 1)


def _groups(path: Path) -> Iterable[tuple[str, list[str]]]:
    """(name of the group in messages, documents); the name is unique over all files."""
    data = read_json(path)
    known = [kind for kind in KINDS if isinstance(data, dict) and kind in data]
    if not known:
        raise PipelineError(f"{path}: holds none of {', '.join(KINDS)}", fix=f"write it as {FORM}")
    for kind in known:
        section: Any = data[kind]
        named = [key for key in ("groups", "clusters") if isinstance(section, dict) and key in section]
        if not named:
            raise PipelineError(f"{path}: {kind} holds neither groups nor clusters", fix=f"write it as {FORM}")
        for key in named:
            if not isinstance(section[key], dict):
                raise PipelineError(f"{path}: {kind}.{key} must be an object, found {section[key]!r:.80}", fix=FORM)
            for group, names in section[key].items():
                if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
                    raise PipelineError(
                        f"{path}: {kind}.{key}.{group} must be a list of names: {names!r:.80}", fix=FORM
                    )
                yield f"{path}: {kind}.{key}.{group}", names


def _no_overlap(listed: Listed) -> None:
    for name, groups in sorted(listed.items()):
        if len(groups) > 1:
            raise PipelineError(
                f"document {name!r} stands in {len(groups)} clusters: {'; '.join(sorted(groups))}",
                fix="list it once, or set split_strategy=dedupped, which joins groups that overlap",
            )


def _matches(documents: list[str], listed: Listed, group_of: Callable[[str], str]) -> dict[str, str]:
    """Document -> the listed name it is found by.

    A name that is a document's own stands for no other: a README.md is not the README.md of another folder.
    """
    found = {document: _path(document) for document in documents if _path(document) in listed}
    for short in (_without_ending, _stem):
        candidates: dict[str, list[str]] = {}
        for name in sorted(listed.keys() - set(found.values())):
            candidates.setdefault(short(name), []).append(name)
        asking: dict[str, list[str]] = {}
        for document in documents:
            if document not in found and short(_path(document)) in candidates:
                asking.setdefault(short(_path(document)), []).append(document)
        for key, ours in asking.items():
            names = candidates[key]
            if len({group_of(name) for name in names}) > 1 or (short is _stem and len(ours) > 1):
                raise PipelineError(
                    f"groups_json: {', '.join(ours)} may be any of {', '.join(names)}: the names are ambiguous",
                    fix="list these documents by the file_name that the records give them",
                )
            found.update(dict.fromkeys(ours, names[0]))
    return found


def _path(name: str) -> str:
    """`./a\\b//c.md` -> `a/b/c.md`."""
    return normpath(name.strip().replace("\\", "/"))


def _without_ending(name: str) -> str:
    return str(PurePosixPath(name).with_suffix("")) if PurePosixPath(name).name else name


def _stem(name: str) -> str:
    return PurePosixPath(name).stem
