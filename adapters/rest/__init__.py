"""The REST dialects: one Flask blueprint a dialect, shared plumbing beside them."""
