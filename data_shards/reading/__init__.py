"""Sets of shards to batches: the order of samples, the reader, the loader."""
