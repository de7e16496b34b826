"""Speed of the package compared with plain programs of the same algorithm: see README.md."""
