"""What the API says: metadata, events and models."""
