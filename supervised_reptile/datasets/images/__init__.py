"""Photographs: image folders, lists and pickles, prepared as one array."""
