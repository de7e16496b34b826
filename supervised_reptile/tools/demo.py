"""Serve the browser pages on this machine.

The built pages come with the package, in ``pages/``. In a checkout, their sources are in ``web/``,
and outdated pages are built again if npm is installed.
"""

from __future__ import annotations

import functools
import hashlib
import http.server
import shutil
import subprocess
import sys
from collections.abc import Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Any, NoReturn

from supervised_reptile.config.command_line import Flag, run_program
from supervised_reptile.errors import RunError
from supervised_reptile.programs import CHECKOUT, command

PAGES = Path(__file__).resolve().parent / "pages"
"""The built pages."""

WEB = CHECKOUT / "web" if CHECKOUT else None
"""Sources of the pages, in a checkout."""

_FLAGS = {"port": Flag(8000, "TCP port on 127.0.0.1; 0 selects a free one.")}
_COMMANDS = (("npm", "ci"), ("npm", "run", "build"))
# Files that the build reads; web/vite.config.ts has the same list.
SOURCES = ("src", "public", "index.html", "figure.html", "vite.config.ts", "package-lock.json")
_DIGEST = "sources.sha256"


def current_pages(pages: Path = PAGES, web: Path | None = WEB) -> Path:
    """Return the folder of the built pages, after building them if their sources are newer.

    Without npm, it keeps outdated pages and prints a note.

    Args:
        pages: Folder of the built pages.
        web: Folder of their sources, or ``None``.

    Raises:
        RunError: There are no pages and no npm to build them, or the build failed.
    """
    built = (pages / "index.html").is_file()
    if web is None or not (web / "package.json").is_file():
        if built:
            return pages
        raise RunError(f"there are no built pages: there must be {pages / 'index.html'}")
    digest = pages / _DIGEST
    if built and digest.is_file() and digest.read_text().strip() == sources_digest(web):
        return pages
    by_hand = f"(cd {web} && {' && '.join(map(' '.join, _COMMANDS))})"
    if shutil.which("npm"):
        _build(web, by_hand)
    elif built:
        print(f"the pages are older than their sources; with npm: {by_hand}", flush=True)
    else:
        raise RunError(
            "the pages are not built, and there is no npm (Node.js 20.19 or newer) to build them. "
            f"Where there is: {by_hand}"
        )
    return pages


def sources_digest(web: Path) -> str:
    """Return the SHA-256 of the sources, which the build also writes next to the pages."""
    tops = [web / name for name in SOURCES]
    files = [f for top in tops for f in (top.rglob("*") if top.is_dir() else [top]) if f.is_file()]
    found = hashlib.sha256()
    for name, file in sorted((file.relative_to(web).as_posix(), file) for file in files):
        found.update(f"{name}\0".encode() + file.read_bytes())
    return found.hexdigest()


def _build(web: Path, by_hand: str) -> None:
    print(f"building the pages: {by_hand}", flush=True)
    for words in _COMMANDS:
        if words[1] == "ci" and _is_installed(web):
            continue
        done = subprocess.run(words, cwd=web, capture_output=True, text=True)
        if done.returncode:
            sys.stderr.write(done.stdout + done.stderr)
            raise RunError(f"`{' '.join(words)}` in {web} failed: see above")


def _is_installed(web: Path) -> bool:
    """Whether npm has installed the packages of package-lock.json."""
    installed = web / "node_modules" / ".package-lock.json"
    lock = web / "package-lock.json"
    return installed.exists() and installed.stat().st_mtime >= lock.stat().st_mtime


class _Handler(http.server.SimpleHTTPRequestHandler):
    # Some systems declare JavaScript as plain text, which browsers refuse to run.
    extensions_map = http.server.SimpleHTTPRequestHandler.extensions_map | {
        ".js": "text/javascript",
        ".svg": "image/svg+xml",
    }

    def send_head(self) -> Any:
        try:
            return super().send_head()
        except ValueError:  # a NUL in the path
            self.send_error(HTTPStatus.BAD_REQUEST)

    def list_directory(self, path: Any) -> None:
        """Report a directory as not found; only files are served."""
        self.send_error(HTTPStatus.NOT_FOUND)

    def end_headers(self) -> None:
        self.send_header("Cache-Control", "no-cache")  # the next reload shows a new build
        super().end_headers()

    def log_message(self, *args: Any) -> None:
        """Log nothing, so the terminal keeps showing the address."""


def make_server(pages: Path, port: int) -> http.server.ThreadingHTTPServer:
    """Return a server of static files that only this machine can reach.

    Args:
        pages: Folder to serve.
        port: TCP port, 0 for any free one.

    Raises:
        RunError: The port is not available.
    """
    handler = functools.partial(_Handler, directory=str(pages))
    try:
        return http.server.ThreadingHTTPServer(("127.0.0.1", port), handler)
    except (OSError, OverflowError) as error:
        raise RunError(f"--port: cannot serve on port {port}: {error}") from error


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run the program.

    Args:
        argv: The program's name and its arguments; ``sys.argv`` by default.
    """
    description = f"""\
Serve the browser pages (draw and classify; how Reptile moves) on this machine.

    {command("demo")}
"""
    run_program(_serve, _FLAGS, argv, description)


def _serve(port: int) -> None:
    """Serve until Ctrl-C."""
    with make_server(current_pages(), port) as server:
        port = server.server_address[1]
        print(f"Draw and classify:  http://127.0.0.1:{port}/", flush=True)
        print(f"How Reptile moves:  http://127.0.0.1:{port}/figure.html", flush=True)
        print("Ctrl-C ends it.", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print()


if __name__ == "__main__":
    main()
