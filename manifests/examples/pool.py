"""A worker: takes jobs over HTTP, any worker any job. Standard library only.

POST / with numbers, one a line: answers which of them are prime. GET / tells where it runs.
"""

import argparse
import http.server
import json
import math
import os
import signal

BODY_MAX = 64 * 1024


def is_prime(number):
    return number > 1 and all(number % factor for factor in range(2, math.isqrt(number) + 1))


class Handler(http.server.BaseHTTPRequestHandler):
    def answer(self, status, value):
        body = (json.dumps({"node": os.environ.get("CLUSTERCTL_NODE"), **value}) + "\n").encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        self.answer(200, {"pid": os.getpid()})

    def do_POST(self):
        length = int(self.headers.get("Content-Length") or 0)
        try:
            numbers = [int(line) for line in self.rfile.read(min(length, BODY_MAX)).split()]
        except ValueError as error:
            self.answer(400, {"error": str(error)})
            return
        self.answer(200, {"primes": [number for number in numbers if number < 10**12 and is_prime(number)]})


def main():
    parser = argparse.ArgumentParser(description="Finds primes.")
    parser.add_argument("--listen", default="0.0.0.0:8102", help="address and port")
    options = parser.parse_args()
    host, port = options.listen.rsplit(":", 1)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    print(f"listening on {options.listen}", flush=True)
    http.server.ThreadingHTTPServer((host, int(port)), Handler).serve_forever()


main()
