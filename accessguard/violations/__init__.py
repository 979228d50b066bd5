"""Cases of restrictions: found by rules, read and resolved by operators."""
