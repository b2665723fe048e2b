"""Says for `make run` whether its arguments suit the recorded sample, by the exporter's own parser.

python -m deploy.demo.sample ARGS --replay FILE
"""

import sys

from exporter.command_line import parse_args
from exporter.errors import ConfigError


def main() -> int:
    """Return 0 if they do."""
    try:
        parse_args(sys.argv[1:])
    except ConfigError as error:
        print(f"**** The recorded sample cannot be shown with these ARGS: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
