"""A set of shards as one self-contained HTML page: a contact sheet to look at."""

from data_shards.browse.page import ContactSheet, write_contact_sheet

__all__ = ["ContactSheet", "write_contact_sheet"]
