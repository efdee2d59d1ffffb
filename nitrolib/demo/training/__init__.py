"""The scripts that made the bundled model: facts, stories, corpus, tokenizer, train, export."""
