"""The wire, without I/O: endpoints, arguments, JSON and event streams."""
