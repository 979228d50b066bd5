"""Questions that a member has to answer before a refusal is lifted."""
