"""Settings: from defaults, a file, the environment and flags, each value checked and in its unit."""
