"""OpenAPI 3.1 documents, one a dialect; data only."""
