"""The session: what IPython, the command line and a queue share.

It finds backend, devices and plans by the import strings of a configuration, and gives them a RunEngine whose runs are
recorded, numbered and turned into maps.
"""

from dfxrm_control.import_strings import resolve
from dfxrm_control.session._arm import forget_arm, kept_arm, restore_arm, store_file
from dfxrm_control.session._controls import find_control_systems
from dfxrm_control.session._devices import DeviceFault, Devices, build_backend, build_devices, make_instrument
from dfxrm_control.session._history import Ran, Status, status_of
from dfxrm_control.session._holding import Holder, holder_of
from dfxrm_control.session._plans import bind_plans
from dfxrm_control.session._progress import ScanClock, ScanProgress
from dfxrm_control.session._session import Outcome, RunOutcome, Session, reason_of
from dfxrm_control.session._shell import interact, namespace
from dfxrm_control.session._store import Beamtime, DeclaredArm, SavedPositions, SessionStore
from dfxrm_control.session._suspenders import NotBelow

__all__ = [
    "Beamtime",
    "DeclaredArm",
    "DeviceFault",
    "Devices",
    "Holder",
    "NotBelow",
    "Outcome",
    "Ran",
    "RunOutcome",
    "SavedPositions",
    "ScanClock",
    "ScanProgress",
    "Session",
    "SessionStore",
    "Status",
    "bind_plans",
    "build_backend",
    "build_devices",
    "find_control_systems",
    "forget_arm",
    "holder_of",
    "interact",
    "kept_arm",
    "make_instrument",
    "namespace",
    "reason_of",
    "resolve",
    "restore_arm",
    "status_of",
    "store_file",
]
