"""Training data: the plan (which rows make a batch) and the loader (reads them)."""
