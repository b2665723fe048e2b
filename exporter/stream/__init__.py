"""The event stream: events as lines of JSON, for local clients on a Unix socket."""
