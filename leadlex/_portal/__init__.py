"""From threads to the loop: the only sync code written by hand, and what generates the rest."""
