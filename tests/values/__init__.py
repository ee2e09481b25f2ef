"""What the API says, as values."""
