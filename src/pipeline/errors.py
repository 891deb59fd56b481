"""Errors a person can act on. Only the command line prints them."""

from __future__ import annotations

from dataclasses import dataclass


class PipelineError(Exception):
    """What is wrong (`message`, naming the file and the value) and how to mend it (`fix`)."""

    def __init__(self, message: str, fix: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.fix = fix

    def __str__(self) -> str:
        return f"{self.message}\n  fix: {self.fix}" if self.fix else self.message


class LockedError(PipelineError):
    """Another process works in the stage's folder."""


@dataclass(frozen=True)
class ConfigProblem:
    """One thing wrong with one key."""

    key: str
    value: object
    problem: str
    origin: str

    def __str__(self) -> str:
        shown = "" if self.value is MISSING else f"={self.value!r}" if isinstance(self.value, str) else f"={self.value}"
        return f"{self.key}{shown}: {self.problem}  [{self.origin}]"


MISSING = object()


class ConfigError(PipelineError):
    """Everything wrong with a configuration, reported together."""

    def __init__(self, what: str, problems: list[ConfigProblem]) -> None:
        count = "1 error" if len(problems) == 1 else f"{len(problems)} errors"
        lines = [f"{count} in the configuration of {what}:", *(f"  {problem}" for problem in problems)]
        super().__init__("\n".join(lines), fix=f"see `pipeline {what.split(' (')[0]} --help` for every key")
        self.problems = problems
