"""`python -m pipeline.retrieval.launch ARGUMENTS OF TORCHRUN`: torchrun without its report on a process that failed.

The process has said itself what was wrong; a page about "elastic agents" under it hides that. Only one that was killed
could say nothing: that is told here.
"""

from __future__ import annotations

import logging
import signal
import sys

from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import main


def cli() -> None:
    """Exit with the code of the first process that failed (128 + a signal's number)."""
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    try:
        main(sys.argv[1:])
    except ChildFailedError as error:
        rank, failed = error.get_first_failure()
        if failed.exitcode < 0:
            name = signal.Signals(-failed.exitcode).name
            print(f"error: process {rank} of this run was killed ({name})\n  fix: is memory short?", file=sys.stderr)
        sys.exit(128 - failed.exitcode if failed.exitcode < 0 else failed.exitcode or 1)


if __name__ == "__main__":
    cli()
