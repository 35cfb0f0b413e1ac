"""The command line, and how a run is launched: in-process, under Ray Train, as a demo."""
