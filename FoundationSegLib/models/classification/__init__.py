"""Adapters of models that compare pictures with texts, one file per family."""
