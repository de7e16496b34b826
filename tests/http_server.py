"""A server on this machine that stands for the ones data sets are downloaded from."""

import contextlib
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path


class Server(http.server.ThreadingHTTPServer):
    """Serves a folder; drops the connection half way for the names in `dropped`."""

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.folder, self.dropped, self.requests = folder, set(), []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/python"


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        name = self.path.removeprefix("/python/")
        self.server.requests.append(name)
        if not (self.server.folder / name).is_file():
            self.send_error(404)
            return
        content = (self.server.folder / name).read_bytes()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        dropped = name in self.server.dropped
        self.wfile.write(content[: len(content) // 2] if dropped else content)

    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[Server]:
    """Serves a folder while the block runs."""
    with Server(folder) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()
