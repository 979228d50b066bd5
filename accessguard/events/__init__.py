"""What operators did, and what the outside is told."""
