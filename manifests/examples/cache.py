"""A cache in partitions: each process keeps the keys of the partitions that its node owns, and refuses others. Standard library only.

GET and PUT /PARTITION/KEY. Who asks finds partition and node by `clusterctl ring locate`; see cache-client.py.
"""

import argparse
import http.server
import json
import os
import signal

VALUE_MAX = 64 * 1024


def numbers(text):
    """The numbers in `0-3,7`."""
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        yield from range(int(first), int(last or first) + 1)


class Cache:
    """Values by partition and key; a partition that is not owned any more is forgotten."""

    def __init__(self, path):
        self.path = path
        self.values = {}
        self.read()

    def read(self):
        try:
            with open(self.path, encoding="utf-8") as file:
                groups = json.load(file)["own"]
        except FileNotFoundError:
            groups = []
        owned = {number: group["epoch"] for group in groups for number in numbers(group["partitions"])}
        # A partition that went and came back in between has another epoch: what was kept of it is old.
        self.values = {
            number: self.values[number] if number in self.values and self.values[number][0] == epoch else (epoch, {})
            for number, epoch in owned.items()
        }
        print(f"{len(owned)} partitions", flush=True)


class Handler(http.server.BaseHTTPRequestHandler):
    cache = None

    def answer(self, status, value):
        body = (json.dumps(value) + "\n").encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def place(self):
        """The values of the partition in the path, and the key; nothing where it is not ours."""
        _, number, key = (self.path.split("/", 2) + ["", ""])[:3]
        found = self.cache.values.get(int(number)) if number.isdigit() else None
        if found is None or not key:
            self.answer(421, {"error": f"partition {number!r} is not here", "node": os.environ.get("CLUSTERCTL_NODE")})
            return None, key
        return found[1], key

    def do_GET(self):
        values, key = self.place()
        if values is not None:
            value = values.get(key)
            self.answer(404 if value is None else 200, {"value": value, "node": os.environ.get("CLUSTERCTL_NODE")})

    def do_PUT(self):
        values, key = self.place()
        length = int(self.headers.get("Content-Length") or 0)
        if values is not None and length <= VALUE_MAX:
            values[key] = self.rfile.read(length).decode("utf-8", "replace")
            self.answer(200, {"node": os.environ.get("CLUSTERCTL_NODE")})
        elif values is not None:
            self.answer(413, {"error": f"a value has at most {VALUE_MAX} bytes"})


def main():
    parser = argparse.ArgumentParser(description="A cache of the partitions that this node owns.")
    parser.add_argument("--listen", default="0.0.0.0:8101", help="address and port")
    options = parser.parse_args()
    host, port = options.listen.rsplit(":", 1)
    Handler.cache = Cache(os.environ["CLUSTERCTL_PARTITIONS_FILE"])
    signal.signal(signal.SIGHUP, lambda *_: Handler.cache.read())
    print(f"listening on {options.listen}", flush=True)
    http.server.HTTPServer((host, int(port)), Handler).serve_forever()


main()
