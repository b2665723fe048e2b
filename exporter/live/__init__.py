"""The sockets of this host: when they are drained, compared with /proc, and proved."""
