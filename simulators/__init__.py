"""The physics twin of the microscope, and the replay of recorded scans."""
