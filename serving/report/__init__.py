"""A lesson's numbers as a page that a teacher reads, and as a table."""

from serving.report.page import lesson_page
from serving.report.table import lesson_csv

__all__ = ["lesson_csv", "lesson_page"]
