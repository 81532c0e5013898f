"""The process that fills a catalogue: ``python -m dfxrm_control.catalogue``.

It puts in what has ended, and ends when nothing has ended for a while. A catalogue that does not answer is asked again
as long as the process lives that asked for it to be filled.
"""

from __future__ import annotations

import argparse
import logging
import os
from pathlib import Path

from dfxrm_control.catalogue._feed import IDLE_S, feed
from dfxrm_control.catalogue._place import Place


def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--journals", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--address", required=True)
    parser.add_argument("--parent", type=int, required=True)
    parser.add_argument("--idle", type=float, default=IDLE_S)
    options = parser.parse_args()
    os.nice(10)  # a scan comes first
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s")
    logging.getLogger("dfxrm_control.catalogue").setLevel(logging.INFO)
    feed(Place(options.journals, options.data, options.address), options.parent, options.idle)


if __name__ == "__main__":
    _main()
