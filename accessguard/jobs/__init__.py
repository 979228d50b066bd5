"""Work that takes longer than a call."""
