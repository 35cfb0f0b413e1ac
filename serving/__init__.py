"""A bundle behind HTTP, and the page."""
