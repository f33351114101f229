"""Asks the cache of cache.py: the node that owns the key's partition, found by `clusterctl ring locate`.

cache-client.py get KEY | put KEY VALUE
"""

import json
import subprocess
import sys
import time
import urllib.error
import urllib.request

APP, PORT = "store", 8101
TRIES = 40


def locate(key):
    """Where the key lives, as the cluster says; what it says instead where it cannot tell."""
    command = ["clusterctl", "ring", "locate", APP, key, "--output", "json"]
    told = subprocess.run(command, capture_output=True, text=True)
    return (json.loads(told.stdout), "nobody owns it") if told.returncode == 0 else ({}, told.stderr.strip())


def ask(key, value=None):
    """Looks anew where the key lives as long as it is on its way from one node to another."""
    for _ in range(TRIES):
        place, why = locate(key)
        if place.get("address"):
            url = f"http://{place['address']}:{PORT}/{place['partition']}/{key}"
            body = None if value is None else value.encode()
            request = urllib.request.Request(url, data=body, method="GET" if value is None else "PUT")
            try:
                with urllib.request.urlopen(request, timeout=2) as answer:
                    return json.load(answer)
            except urllib.error.HTTPError as error:
                if error.code != 421:
                    return json.load(error)
                why = f"{place['node']} does not own it"
            except OSError as error:
                why = f"{place['node']}: {error}"
        time.sleep(0.25)
    sys.exit(f"{key}: {why}")


def main():
    if len(sys.argv) == 3 and sys.argv[1] == "get":
        print(json.dumps(ask(sys.argv[2])))
    elif len(sys.argv) == 4 and sys.argv[1] == "put":
        print(json.dumps(ask(sys.argv[2], sys.argv[3])))
    else:
        sys.exit(__doc__.strip())


main()
