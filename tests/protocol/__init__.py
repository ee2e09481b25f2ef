"""Bytes to values and back, the checks of arguments: no socket, no clock."""
