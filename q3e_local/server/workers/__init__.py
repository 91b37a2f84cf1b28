"""Models in processes of their own: started, fed with full batches, watched and ended."""
