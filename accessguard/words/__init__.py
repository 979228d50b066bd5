"""What people read, in six languages: students who were refused, operators who set the rules. No state of any tenant."""
