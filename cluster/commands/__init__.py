"""The commands of `rapt`, one file a noun."""
