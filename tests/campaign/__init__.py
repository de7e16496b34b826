"""Fault campaigns: seeded, of any length, with counts of what came of each case."""
