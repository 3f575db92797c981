"""Recall by meaning: vectors of what was said, in Milvus, beside a store of any kind, which stays the only truth."""
