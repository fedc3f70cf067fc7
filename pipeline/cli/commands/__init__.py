"""What each word of the command line does: arguments in, an exit code out. Data to stdout, all else to stderr."""
