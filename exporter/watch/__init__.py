"""`proc-connector-exporter watch`: happenings on a terminal."""
