"""The REST routes of sessions: what they take and give, and how a conversation goes out and comes in."""
