"""Logical devices of the microscope, on classic ophyd."""
