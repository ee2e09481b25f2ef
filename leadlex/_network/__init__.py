"""The edge: what sends, waits and does what the rules decided."""
