"""HTTP: pages, server, TLS, passwords and limits of clients."""
