"""The server against its own OpenAPI document: `make contract` lets schemathesis try everything for five minutes."""
