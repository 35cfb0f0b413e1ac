"""Processes that read what strangers sent, and what they are held in."""
