"""Recordings with several people in view."""
