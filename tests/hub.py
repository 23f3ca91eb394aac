"""A model hub on loopback: serves folders under hub names, as much of the API as loading needs."""

import base64
import contextlib
import hashlib
import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path

COMMIT = "a" * 40


@contextlib.contextmanager
def serve(
    repositories: dict[str, Path], uploads: dict | None = None
) -> Iterator[tuple[str, list[str]]]:
    """Serve ``{"owner/name": folder}``; yields the address and the list of paths asked for.

    What is uploaded lies in ``uploads``, where it is given.
    """
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, *_):
            pass

        def answer(self, code, body=b"", kind="application/json", **headers):
            self.send_response(code)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def do_GET(self):
            path = self.path.split("?")[0]
            asked.append(path)
            name = next((name for name in repositories if f"/{name}" in path), None)
            if name is None:
                return self.answer(404, X_Error_Code="RepoNotFound")
            files = {
                str(file.relative_to(repositories[name])): file.read_bytes()
                for file in repositories[name].rglob("*")
                if file.is_file()
            }
            if "/resolve/" in path:
                file = path.split("/resolve/")[1].split("/", 1)[1]
                if file not in files:
                    return self.answer(404, X_Error_Code="EntryNotFound", X_Repo_Commit=COMMIT)
                tag = hashlib.sha1(files[file]).hexdigest()
                return self.answer(
                    200, files[file], "application/octet-stream", ETag=f'"{tag}"',
                    X_Repo_Commit=COMMIT,
                )  # fmt: skip
            if "/tree/" in path:
                listing = [
                    {"type": "file", "path": file, "size": len(body),
                     "oid": hashlib.sha1(body).hexdigest()}
                    for file, body in files.items()
                ]  # fmt: skip
                inside = path.split("/tree/")[1].count("/")
                return self.answer(200, json.dumps([] if inside else listing).encode())
            about = {
                "id": name, "sha": COMMIT, "private": False, "tags": [], "downloads": 0,
                "likes": 0, "siblings": [{"rfilename": file} for file in files],
            }  # fmt: skip
            return self.answer(200, json.dumps(about).encode())

        do_HEAD = do_GET

        def do_POST(self):
            sent = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            address = f"http://{self.headers['Host']}"
            if uploads is None:
                return self.answer(200, b"[]")
            if self.path == "/api/repos/create":
                made = json.loads(sent)
                uploads["created"] = made
                name = f"{made.get('organization', 'me')}/{made['name']}"
                return self.answer(200, json.dumps({"url": f"{address}/{name}"}).encode())
            if "/preupload/" in self.path:
                files = [
                    {"path": one["path"], "uploadMode": "regular", "shouldIgnore": False}
                    for one in json.loads(sent)["files"]
                ]
                return self.answer(200, json.dumps({"files": files}).encode())
            if "/commit/" in self.path:
                lines = [json.loads(line) for line in sent.splitlines()]
                uploads["files"] = {
                    one["value"]["path"]: base64.b64decode(one["value"]["content"])
                    for one in lines if one["key"] == "file"
                }  # fmt: skip
                name = self.path.removeprefix("/api/models/").split("/commit/")[0]
                place = f"{address}/{name}/commit/{COMMIT}"
                done = {"success": True, "commitOid": COMMIT, "commitUrl": place}
                return self.answer(200, json.dumps(done).encode())
            return self.answer(200, b"{}")

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()
