"""`python -m cluster` is `rapt`."""

from cluster.command_line import main

main()
