"""The process of bluesky-queueserver's RE manager: ours only in that it makes sure which packages it will run."""

from __future__ import annotations

import sys

from dfxrm_control.start_up import check_packages


def main() -> int:
    """Run the RE manager until it is stopped."""
    check_packages()
    from bluesky_queueserver.manager.start_manager import start_manager

    return start_manager() or 0


if __name__ == "__main__":
    sys.exit(main())
