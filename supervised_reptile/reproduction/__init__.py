"""The published tables, and our results next to them."""
