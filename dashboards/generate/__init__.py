"""Generates the dashboards' JSON and the rules' YAML: `python -m dashboards.generate`, or `make dashboards`."""
