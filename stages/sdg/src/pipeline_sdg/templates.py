"""The prompts: plain text files in `prompts/PROFILE/`, or in a folder of the user's, filled in by name.

A profile holds only the templates that differ; the others are those of `default`. Everything is read and checked
before the first call: a prompt without its segments would be paid for and answer nothing.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from string import Template

from pipeline.errors import PipelineError

STANDARD = "default"
_SHIPPED = files("pipeline_sdg").joinpath("prompts")
_ENDING = ".txt"
_OPTIONAL = {
    "artifacts": {"title", "extra"},
    "qa": {"title", "notes"},
    "judge": {"neighbours"},
    "relevance": {"count"},
}
"""Placeholders that a template can do without. All others of the default template must stand in every profile's."""
CONVERSATIONS = ("qa_small", "qa_small_search")
"""Templates that are turns of a conversation, each a line that begins with its kind."""
_TURNS = ("system: ", "statement: ", "answer: ")


@dataclass(frozen=True, eq=False)
class Prompts:
    """The templates of one profile by name (`qa`, `judge`, ...), complete and checked."""

    profile: str
    templates: Mapping[str, Template]

    @classmethod
    def of(cls, profile: str) -> Prompts:
        """Read a profile: one of the shipped ones by its name, or (with a slash) a folder of the user's.

        Raises:
            PipelineError: there is no such profile, or a file of it is no template that can be used.
        """
        standard = _read(_SHIPPED.joinpath(STANDARD))
        if profile == STANDARD:
            return cls(profile, standard)
        folder = _folder(profile)
        _only_templates(folder, list(standard))
        own = _read(folder)
        if not own:
            raise PipelineError(
                f"{folder}: no template in it", fix=f"put some of {', '.join(map(_file_name, standard))} into it"
            )
        for name, template in own.items():
            _check(f"{folder.joinpath(_file_name(name))}", name, template, standard[name])
        return cls(profile, {**standard, **own})

    def render(self, name: str, **values: object) -> str:
        """Fill in a template; a placeholder without a value is a KeyError, not a hole in the prompt."""
        return self.templates[name].substitute({key: str(value) for key, value in values.items()}).strip()


class Profiles:
    """Which prompts each document gets. All profiles are read and checked at once, before any call."""

    def __init__(self, default: str, by_pattern: Mapping[str, str]) -> None:
        """Take the profile for documents that no pattern fits, and profiles by pattern, the first that fits counts.

        Args:
            by_pattern: pattern of the path within the corpus (as in a shell, but `*` crosses folders) -> profile;
                one that begins with a dot is a suffix. Case does not matter.

        Raises:
            PipelineError: a profile cannot be used, or a pattern is empty.
        """
        loaded = {name: Prompts.of(name) for name in {default: None, **dict.fromkeys(by_pattern.values())}}
        self._default = loaded[default]
        self._by_pattern = [(_pattern(pattern), loaded[name]) for pattern, name in by_pattern.items()]

    def of(self, document: str) -> Prompts:
        """The prompts of a document, by its path within the corpus; a row (`FILE#ID`) has those of its file."""
        name = document.lower()
        names = (name, name.partition("#")[0])
        fitting = (prompts for pattern, prompts in self._by_pattern if any(fnmatchcase(n, pattern) for n in names))
        return next(fitting, self._default)


def shipped() -> list[str]:
    """The names of the profiles that come with the stage."""
    return sorted(folder.name for folder in _SHIPPED.iterdir() if folder.is_dir())


def _pattern(given: str) -> str:
    pattern = given.strip().removeprefix("./").lower()
    if not pattern:
        raise PipelineError(
            f"prompt_profiles: {given!r} is no pattern", fix="write a path or a suffix, such as {'.rst': reference}"
        )
    return f"*{pattern}" if pattern.startswith(".") else pattern


def _folder(profile: str) -> Traversable:
    if "/" in profile:
        folder = Path(profile).expanduser()
        if not folder.is_dir():
            raise PipelineError(
                f"prompt profile {profile}: no such folder",
                fix=f"name an existing folder, or one of {', '.join(shipped())}",
            )
        return folder
    if profile not in shipped():
        near = difflib.get_close_matches(profile, shipped(), 1)
        raise PipelineError(
            f"there is no prompt profile {profile!r}",
            fix=f"{f'did you mean {near[0]}? ' if near else ''}known: {', '.join(shipped())}; "
            "a folder of your own needs a slash, such as ./prompts",
        )
    return _SHIPPED.joinpath(profile)


def _file_name(template: str) -> str:
    return template + _ENDING


def _files(folder: Traversable) -> Iterator[Traversable]:
    """The files of a profile, less hidden ones and a README; a link to nothing is one of them, and cannot be read."""
    try:
        found = sorted(folder.iterdir(), key=lambda file: file.name)
    except OSError as error:
        raise PipelineError(f"{folder}: {error.strerror}", fix="make the folder readable") from None
    for file in found:
        if not file.is_dir() and not file.name.startswith((".", "README")):
            yield file


def _only_templates(folder: Traversable, known: list[str]) -> None:
    """A file whose name is mistyped would silently change nothing."""
    names = [_file_name(name) for name in known]
    for file in _files(folder):
        if file.name not in names:
            near = difflib.get_close_matches(file.name, names, 1)
            raise PipelineError(
                f"{file}: no prompt has this name",
                fix=f"{f'did you mean {near[0]}? ' if near else ''}known: {', '.join(names)}; notes go into a README",
            )


def _read(folder: Traversable) -> dict[str, Template]:
    return {file.name.removesuffix(_ENDING): Template(_text(file)) for file in _files(folder)}


def _text(file: Traversable) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise PipelineError(f"{file}: not UTF-8 (byte {error.start})", fix="store the file as UTF-8") from None
    except OSError as error:
        raise PipelineError(f"{file}: {error.strerror}", fix="make the file readable") from None


def _check(file: str, name: str, template: Template, standard: Template) -> None:
    allowed = standard.get_identifiers()
    listed = ", ".join(f"${word}" for word in allowed) or "none"
    for number, line in enumerate(template.template.splitlines(), 1):
        if not Template(line).is_valid():
            raise PipelineError(
                f"{file}:{number}: a $ without a name: {line.strip()!r:.120}",
                fix=f"write $$ for the sign itself; placeholders there are: {listed}",
            )
        for word in Template(line).get_identifiers():
            if word not in allowed:
                raise PipelineError(
                    f"{file}:{number}: unknown placeholder ${word}",
                    fix=f"placeholders there are: {listed}; $$ is the sign itself",
                )
    used = template.get_identifiers()
    missing = [f"${word}" for word in allowed if word not in used and word not in _OPTIONAL.get(name, ())]
    if missing:
        raise PipelineError(
            f"{file}: {', '.join(missing)} is missing", fix="the call makes no sense without it: put it in"
        )
    if name in CONVERSATIONS:
        _check_turns(file, template.template.rstrip().splitlines())


def _check_turns(file: str, lines: list[str]) -> None:
    """At most one `system:` line, then statements, each with its answer: servers refuse turns in another order."""
    start = 1 if lines and lines[0].startswith(_TURNS[0]) else 0
    for number, line in enumerate(lines[start:], start):
        wanted = _TURNS[1 + (number - start) % 2]
        if not line.startswith(wanted) or not line.removeprefix(wanted).strip():
            raise PipelineError(
                f"{file}:{number + 1}: expected {wanted.strip()!r} and a text, found {line!r:.120}",
                fix="one line `system: TEXT`, then pairs of lines `statement: TEXT`, `answer: TEXT`",
            )
    if (len(lines) - start) % 2 or not lines:
        raise PipelineError(f"{file}: ends without an answer", fix="add a line `answer: TEXT`")


DEFAULT = Prompts.of(STANDARD)
