"""Packaging of supervised-reptile; every setting is in pyproject.toml."""

from setuptools import setup

setup()
