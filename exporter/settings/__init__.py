"""What a user can set: a module for each part of it, a row for each flag. `exporter/config.py` has them all."""
