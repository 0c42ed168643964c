"""A server on this machine that speaks the hub's protocol, as far as downloads of models and datasets ask for it."""

import hashlib
import json
import threading
import urllib.parse
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@contextmanager
def hub():
    """Yield (environment of a process that asks it, names of the files asked for, {name: bytes} of its one repository
    someone/thing, a model and a dataset, to be filled)."""
    asked, files = [], {}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            path = urllib.parse.unquote(self.path.partition("?")[0])
            body, headers, name = None, {"X-Repo-Commit": COMMIT}, path.rpartition("/resolve/")[2].partition("/")[2]
            if "someone/thing" not in path:
                headers["X-Error-Code"] = "RepoNotFound"
            elif "/tree/" in path:
                below = path.partition("/tree/")[2].partition("/")[2]
                body = json.dumps([_listed(name, files) for name in files if name.startswith(below)]).encode()
            elif "/paths-info/" in path:
                form = self.rfile.read(int(self.headers["Content-Length"])).decode()
                names = urllib.parse.parse_qs(form).get("paths") or json.loads(form)["paths"]
                body = json.dumps([_listed(name, files) for name in names if name in files]).encode()
            elif "/api/" in path:
                siblings = [{"rfilename": name} for name in files]
                body = json.dumps({"id": "someone/thing", "sha": COMMIT, "siblings": siblings}).encode()
            elif name in files:
                body, headers["ETag"] = files[name], f'"{_digest(files[name])}"'
                asked.append(name)
            else:
                headers["X-Error-Code"] = "EntryNotFound"
            self.send_response(404 if body is None else 200)
            for key, value in (headers | {"Content-Length": str(len(body or b""))}).items():
                self.send_header(key, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body or b"")

        do_HEAD = do_POST = do_GET

        def log_message(self, *args):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        yield {"HF_ENDPOINT": address, "HF_HUB_OFFLINE": "0", "NO_PROXY": "*"}, asked, files
        server.shutdown()


def _digest(content):
    return hashlib.sha1(content).hexdigest()


def _listed(name, files):
    return {"type": "file", "path": name, "size": len(files[name]), "oid": _digest(files[name])}
