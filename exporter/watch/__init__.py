"""`proc-connector-exporter watch`: events on a terminal."""
