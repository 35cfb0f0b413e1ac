"""Lessons as jobs: uploaded, scored in turn, kept as numbers for as long as is said."""
