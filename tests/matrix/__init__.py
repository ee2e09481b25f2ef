"""The fault matrix: one row, one fault, one promise."""
