"""The command `leadlex`."""
