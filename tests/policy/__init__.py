"""What is tried again, what a replay continues, what is charged."""
