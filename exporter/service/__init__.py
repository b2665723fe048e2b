"""The daemon: logs, privileges, systemd, upkeep."""
