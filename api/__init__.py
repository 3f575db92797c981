"""What HTTP clients meet: turns, sessions, the page, and what they are told of errors."""
