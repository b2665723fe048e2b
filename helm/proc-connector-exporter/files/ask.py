"""Ask an exporter behind a service whether its numbers can be trusted; the exit code is 0 if they can."""

import socket
import ssl
import sys
import urllib.error
import urllib.parse
import urllib.request

url = sys.argv[1]
address = urllib.parse.urlsplit(url)
if address.scheme == "tcp":
    # The exporter wants a client certificate, and the test has none: it can only check that it listens.
    socket.create_connection((address.hostname, address.port), timeout=10).close()
    print("It listens")
    sys.exit()
# A client that asks by the service's name has no certificate authority to check it with.
context = ssl.create_default_context()
context.check_hostname = False
context.verify_mode = ssl.CERT_NONE
try:
    with urllib.request.urlopen(f"{url}/-/ready", timeout=10, context=context) as answer:
        print(answer.status, answer.read().decode())
except urllib.error.HTTPError as error:
    print(error.code, error.read().decode())
    # The exporter serves, and refuses clients without a password.
    sys.exit(error.code not in (401, 403))
