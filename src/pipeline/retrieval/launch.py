"""`python -m pipeline.retrieval.launch ARGUMENTS OF TORCHRUN`: torchrun without its report on a process that failed.

The process has said itself what was wrong; a page about "elastic agents" under it hides that.
"""

from __future__ import annotations

import logging
import sys

from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import main


def cli() -> None:
    """Exit with the code of the first process that failed."""
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    try:
        main(sys.argv[1:])
    except ChildFailedError as error:
        sys.exit(error.get_first_failure()[1].exitcode or 1)


if __name__ == "__main__":
    cli()
