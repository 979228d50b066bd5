"""The use cases: check, login, end, and what operators change. Where a missing store is decided."""
