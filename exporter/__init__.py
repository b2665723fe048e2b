"""Prometheus exporter of process life, from the kernel's process connector."""

__version__ = "0.1.0"
