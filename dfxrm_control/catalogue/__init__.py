"""The catalogue: every run that has ended, in Tiled, to be looked for by who, what and when.

It is filled from the journals by a process of its own and is never needed by a scan: where it is dead or slow, what it
missed is put in later. The journals stay the record; a catalogue that is lost can be filled again from them.
"""

from dfxrm_control.catalogue._feed import Fed, catch_up, data_folders, forget_faults, left_out, pending
from dfxrm_control.catalogue._listing import Filter, Listed, describe, find, listed, table_of
from dfxrm_control.catalogue._opening import CatalogueError, opened
from dfxrm_control.catalogue._place import Place, place_of

__all__ = [
    "CatalogueError",
    "Fed",
    "Filter",
    "Listed",
    "Place",
    "catch_up",
    "data_folders",
    "describe",
    "find",
    "forget_faults",
    "left_out",
    "listed",
    "opened",
    "pending",
    "place_of",
    "table_of",
]
