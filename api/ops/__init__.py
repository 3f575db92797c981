"""What operators see of a server: its log, its metrics, its documentation, and the headers of every response."""
