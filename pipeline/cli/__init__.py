"""The command line: the parser, the commands, and how arguments become settings."""
