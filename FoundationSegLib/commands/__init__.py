"""The command line, one file per command. The composition root: it may import everything, command by command."""
