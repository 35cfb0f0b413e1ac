"""Listings to sets of shards: planned, claimed, written, copied, checked."""
