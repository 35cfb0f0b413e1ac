"""Bytes and video to tensors: datasets, decoding, WebDataset shards, and the loader that reads them."""
