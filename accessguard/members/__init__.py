"""Students: who they are, and what operators see of them."""
