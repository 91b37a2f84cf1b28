"""Texts to vectors where another program deals out the work in batches: Ray, Spark, Dask, Daft."""
