"""Adapters of models that segment, one file per family."""
