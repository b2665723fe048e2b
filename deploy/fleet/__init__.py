"""A simulated fleet: what a thousand nodes cost a Prometheus."""
