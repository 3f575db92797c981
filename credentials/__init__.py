"""What says who is calling: API keys, one-time links, and JSON Web Tokens. Nothing here knows HTTP."""
