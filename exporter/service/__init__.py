"""What a daemon needs beside its work: logs, privileges, systemd, upkeep."""
