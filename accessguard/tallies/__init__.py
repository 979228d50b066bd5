"""What happened on each day, counted; outlives what it was counted from."""
