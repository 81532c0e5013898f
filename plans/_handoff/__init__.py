"""Plans that go from a coarse grain map to the grains themselves."""

from plans._handoff._center import center_grain
from plans._handoff._find import find_grain
from plans._handoff._plans import campaign, dct_to_dfxrm, least_travel
from plans._handoff._visit import HandoffWarning

__all__ = ["HandoffWarning", "campaign", "center_grain", "dct_to_dfxrm", "find_grain", "least_travel"]
