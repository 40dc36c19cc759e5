"""One module per command, each with a click `command` that reads the options and calls the work."""
