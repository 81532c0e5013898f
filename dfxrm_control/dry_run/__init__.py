"""What a plan would do, found out by running it with nothing behind it.

The plan runs message by message against the real device classes on a backend that is only a notebook of positions: the
limits that are checked, the pseudo axes that are worked out and the windows that are chosen are those of the run. No
control system is spoken to and no frame is made.
"""

from dfxrm_control.dry_run._all import Tried, try_all
from dfxrm_control.dry_run._predict import predict
from dfxrm_control.dry_run._report import DryRun, Travel
from dfxrm_control.dry_run._run import dry_run
from dfxrm_control.dry_run._start import StartUnknownError, last_positions

__all__ = ["DryRun", "StartUnknownError", "Travel", "Tried", "dry_run", "last_positions", "predict", "try_all"]
