"""Plans that align the microscope: each finds something, says how sure it is, and moves nothing when it is not."""

from plans._alignment._peak import center_axis, find_peak

__all__ = ["center_axis", "find_peak"]
