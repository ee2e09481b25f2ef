"""The tests of leadlex."""
