"""What a tenant has decided: its rules and its settings."""
