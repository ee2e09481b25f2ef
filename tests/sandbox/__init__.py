"""The sandbox, seen by a plain HTTP client."""
