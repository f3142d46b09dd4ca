"""Cohorts: many images, one model. Cases of folders and tables, a Dask cluster that computes them, pages."""
