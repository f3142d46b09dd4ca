"""Packages that models need, and what a Python has. Standard library only."""
