"""The HTTP API: routes, request reading, error answers, admission."""
