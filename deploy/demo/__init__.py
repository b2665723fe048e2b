"""A demonstration on one machine: exporter, Prometheus, Grafana and something to look at."""
