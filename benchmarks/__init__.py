"""Speed of the package beside plain programs of the same algorithm: see README.md."""
