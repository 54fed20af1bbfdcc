"""Text: sources, documents, tokenizers and token shards."""
