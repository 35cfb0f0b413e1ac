"""The endpoint on Ray Serve: what runs in which replica, and what swaps its model."""
