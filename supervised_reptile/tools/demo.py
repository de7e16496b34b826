"""Serves the browser pages of ``web/`` on this machine."""

from __future__ import annotations

import argparse
import functools
import http.server
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from supervised_reptile.errors import RunError, UserError

WEB = Path(__file__).resolve().parents[2] / "web"
_COMMANDS = (("npm", "ci"), ("npm", "run", "build"))
# What the build reads, next to package-lock.json.
_SOURCES = ("src", "public", "index.html", "figure.html", "vite.config.ts")


def built_pages(web: Path = WEB) -> Path:
    """The folder of the built pages; builds them first where that is needed.

    Args:
        web: The ``web/`` folder of a checkout.

    Returns:
        ``web/dist``, not older than its sources.

    Raises:
        RunError: There is no checkout, no npm, or the build failed.
    """
    pages = web / "dist"
    if not (web / "package.json").exists():
        if (pages / "index.html").exists():  # built elsewhere and copied
            return pages
        raise RunError(
            f"the pages belong to a checkout of the project: there is no {web / 'package.json'}"
        )
    if _is_current(pages, web):
        return pages
    by_hand = " && ".join(" ".join(command) for command in _COMMANDS)
    if shutil.which("npm") is None:
        raise RunError(
            f"the pages are not built, or older than their sources, and npm (Node.js 20.19 or "
            f"newer) is not there to build them. Where it is: (cd {web} && {by_hand})"
        )
    print(f"building the pages: (cd {web} && {by_hand})", flush=True)
    for command in _COMMANDS:
        if command[1] == "ci" and _is_installed(web):
            continue
        done = subprocess.run(command, cwd=web, capture_output=True, text=True)
        if done.returncode:
            sys.stderr.write(done.stdout + done.stderr)
            raise RunError(f"`{' '.join(command)}` in {web} failed: see above")
    return pages


def _is_current(pages: Path, web: Path) -> bool:
    if not (pages / "index.html").exists():
        return False
    built = (pages / "index.html").stat().st_mtime
    tops = [web / name for name in _SOURCES]
    files = [f for top in tops for f in ([top] if top.is_file() else top.rglob("*"))]
    return all(f.stat().st_mtime <= built for f in files if f.is_file())


def _is_installed(web: Path) -> bool:
    """Whether npm installed what package-lock.json asks for."""
    installed = web / "node_modules" / ".package-lock.json"
    lock = web / "package-lock.json"
    return installed.exists() and installed.stat().st_mtime >= lock.stat().st_mtime


class _Handler(http.server.SimpleHTTPRequestHandler):
    # Some systems' registries call JavaScript plain text, which browsers then refuse to run.
    extensions_map = http.server.SimpleHTTPRequestHandler.extensions_map | {
        ".js": "text/javascript",
        ".svg": "image/svg+xml",
    }

    def end_headers(self) -> None:
        self.send_header("Cache-Control", "no-cache")  # a new build shows at the next reload
        super().end_headers()

    def log_message(self, *args: Any) -> None:
        """Nothing: the terminal keeps the address in sight."""


def make_server(pages: Path, port: int) -> http.server.ThreadingHTTPServer:
    """A server of static files that only this machine can reach.

    Args:
        pages: Folder to serve.
        port: TCP port, 0 for any free one.

    Raises:
        RunError: The port cannot be had.
    """
    handler = functools.partial(_Handler, directory=str(pages))
    try:
        return http.server.ThreadingHTTPServer(("127.0.0.1", port), handler)
    except (OSError, OverflowError) as error:
        raise RunError(f"--port: cannot serve on port {port}: {error}") from error


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: Arguments without the program's name; None to take them from `sys.argv`.

    Returns:
        Exit code: 0 after Ctrl-C, 1 after one line on stderr. Wrong usage exits with 2.
    """
    parser = argparse.ArgumentParser(
        prog="python -m supervised_reptile.tools.demo",
        description="Serve the browser pages (draw and classify; how Reptile moves) on this "
        "machine, and build them first where that is needed.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--port",
        type=int,
        default=8000,
        help="TCP port on 127.0.0.1; 0 takes any free one (default: %(default)s)",
    )
    args = parser.parse_args(argv)
    try:
        server = make_server(built_pages(), args.port)
    except UserError as error:
        print(f"demo: error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("\ndemo: stopped", file=sys.stderr)
        return 130
    with server:
        port = server.server_address[1]
        print(f"Draw and classify:  http://127.0.0.1:{port}/", flush=True)
        print(f"How Reptile moves:  http://127.0.0.1:{port}/figure.html", flush=True)
        print("Ctrl-C ends it.", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print()
    return 0


if __name__ == "__main__":
    sys.exit(main())
