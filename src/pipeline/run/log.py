"""A stage's log: every line in `logs/<time>.log`, the same on the terminal."""

from __future__ import annotations

import logging
import os
from datetime import datetime
from pathlib import Path

LOGGER = "pipeline"


def start_log(folder: Path, stamp: str, verbose: bool) -> Path:
    """Send the `pipeline` logger to the terminal and to a new file; point `logs/latest.log` at it."""
    from rich.console import Console
    from rich.logging import RichHandler

    path = folder / "logs" / f"{stamp}.log"
    path.parent.mkdir(parents=True, exist_ok=True)
    to_file = logging.FileHandler(path, encoding="utf-8")
    to_file.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(message)s", "%Y-%m-%d %H:%M:%S"))
    console = Console(stderr=True)
    to_screen: logging.Handler
    if console.is_terminal:
        to_screen = RichHandler(console=console, show_path=False, show_level=False, log_time_format="%H:%M:%S")
    else:
        to_screen = logging.StreamHandler()
        to_screen.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    logger = logging.getLogger(LOGGER)
    logger.handlers = [to_file, to_screen]
    logger.setLevel(logging.DEBUG if verbose else logging.INFO)
    logger.propagate = False
    _point_latest(path)
    return path


def _point_latest(path: Path) -> None:
    latest = path.with_name("latest.log")
    temporary = path.with_name(f".latest.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(path.name)
    os.replace(temporary, latest)


def new_stamp() -> str:
    return datetime.now().strftime("%Y%m%d-%H%M%S")
