"""What the processes of one run owe each other when something is wrong."""

from __future__ import annotations

import os
import time

_SECONDS = 5.0


def wait_for_the_first_process() -> None:
    """Give the first of several processes time to report a fault before this one does.

    Nearly always all find the same fault: then the first says so, and torchrun ends the others in this wait. Who comes
    out of it has a fault of its own to tell. A lone or first process does not wait.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and int(os.environ.get("RANK", "0")) > 0:
        time.sleep(_SECONDS)
