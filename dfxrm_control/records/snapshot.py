"""``python -m dfxrm_control.records.snapshot JOURNAL MASTER``: writes the master of a running scan when asked.

Each line on standard input asks for a master of what the journal holds by then; the answer is one line: empty, or why
it could not be written. The process ends when its input does, also because the session died.
"""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

from dfxrm_control.errors import DfxrmError
from dfxrm_control.records.master import write_master

NICENESS = 10


def main(journal: Path, master: Path) -> None:
    """Answer until the input ends."""
    with contextlib.suppress(OSError):
        os.nice(NICENESS)
    for _ in sys.stdin:
        try:
            write_master(journal, master)
            print(flush=True)
        except DfxrmError as error:
            print(" ".join(str(error).split()), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
