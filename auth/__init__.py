"""Who is calling: from a credential (API key, JWT, one-time link, cookie) to a `user_id`."""
