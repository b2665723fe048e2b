"""Happenings as lines of JSON, to local clients on a Unix socket."""
