"""What is read: a document, or the reason why there is none."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Document:
    """One text. `path` names it in the run: the file relative to the corpus, or `file#id` for a row of a table.

    `own_id` is the row's own id (the path of a file), `title` what the file itself gives as its title, if anything.
    """

    path: str
    text: str
    title: str = ""
    own_id: str = ""

    @property
    def id(self) -> str:
        return self.own_id or self.path


class Unreadable(Exception):
    """A file, or one row of it, cannot be used. The message says why, in words for the user."""


@dataclass(frozen=True)
class Failure:
    """A file or row (`path`) that was listed instead of read."""

    path: str
    reason: str


@dataclass(frozen=True)
class Found:
    """A text and the encoding it was stored in, if that had to be guessed."""

    document: Document
    guessed: str = ""
