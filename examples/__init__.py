"""One small platform for each framework, all alike: a home page, a login, a logout and a course."""
