"""Notes: a small HTTP service with one writer and one SQLite file. Standard library only.

GET / tells where it runs, GET /notes lists, POST /notes adds the body as a note.
"""

import argparse
import http.server
import json
import os
import signal
import sqlite3

BODY_MAX = 64 * 1024


def arguments():
    parser = argparse.ArgumentParser(description="Notes over HTTP, in one SQLite file.")
    parser.add_argument("--listen", default="0.0.0.0:8100", help="address and port")
    parser.add_argument("--db", required=True, help="the database file")
    return parser.parse_args()


def open_database(path):
    database = sqlite3.connect(path, timeout=5, isolation_level=None)
    # What is written to the write-ahead log is what standbys are sent.
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("CREATE TABLE IF NOT EXISTS notes (number INTEGER PRIMARY KEY, text TEXT NOT NULL)")
    return database


class Handler(http.server.BaseHTTPRequestHandler):
    database = None

    def answer(self, status, value):
        body = (json.dumps(value) + "\n").encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        if self.path == "/":
            self.answer(200, {"node": os.environ.get("CLUSTERCTL_NODE"), "pid": os.getpid()})
        elif self.path == "/notes":
            rows = self.database.execute("SELECT number, text FROM notes ORDER BY number")
            self.answer(200, [{"number": number, "text": text} for number, text in rows])
        else:
            self.answer(404, {"error": "there are / and /notes"})

    def do_POST(self):
        length = int(self.headers.get("Content-Length") or 0)
        if self.path != "/notes" or not 0 < length <= BODY_MAX:
            self.answer(400, {"error": f"post 1 to {BODY_MAX} bytes to /notes"})
            return
        text = self.rfile.read(length).decode("utf-8", "replace")
        number = self.database.execute("INSERT INTO notes (text) VALUES (?)", (text,)).lastrowid
        self.answer(201, {"number": number})


def main():
    options = arguments()
    host, port = options.listen.rsplit(":", 1)
    Handler.database = open_database(options.db)
    # One request after the other: there is one writer, and that is all that is needed here.
    server = http.server.HTTPServer((host, int(port)), Handler)
    # A reload tells nothing that it has to know.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    print(f"notes in {options.db}, listening on {options.listen}", flush=True)
    server.serve_forever()


main()
