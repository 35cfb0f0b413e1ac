"""Who may ask the endpoint for what, how often, and what is written down of it."""
