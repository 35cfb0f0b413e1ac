"""The papers' tables made again: one function a table, published numbers beside ours. `TABLES` in tables.py names them."""
