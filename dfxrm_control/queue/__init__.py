"""Queues of scans that run unattended: bluesky-queueserver on our session, behind a gate.

What is cheap is imported with this package: reading and checking queue files. Serving a queue is `_serve`, asking one
is `_client`, and both are imported by the commands that need them.
"""

from dfxrm_control.queue._errors import QueueError
from dfxrm_control.queue._night import Item, Night, read_night
from dfxrm_control.queue._plans import with_conditions

__all__ = ["Item", "Night", "QueueError", "read_night", "with_conditions"]
