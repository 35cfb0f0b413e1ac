"""The HTTP contract: routes, guards before them, and what is counted."""
