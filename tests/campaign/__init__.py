"""A campaign of faults: kills, damaged files, full disks, double starts, nonsense as input."""
