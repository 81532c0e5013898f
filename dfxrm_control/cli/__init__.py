"""The ``dfxrm`` command.

Only click is imported here: each subcommand is loaded when it is called, and loads what is heavy when it runs, so that
``--help`` answers at once.
"""

from dfxrm_control.cli._main import main

__all__ = ["main"]
