"""HTTP: pages, server, TLS, passwords and limits."""
