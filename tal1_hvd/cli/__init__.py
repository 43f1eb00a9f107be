"""The command line, one module a command: flags, configuration, one call, exit code."""
