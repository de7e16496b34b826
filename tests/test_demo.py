"""The command that serves the browser pages."""

import os
import re
import shutil
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from helpers import PROJECT

from supervised_reptile.errors import RunError
from supervised_reptile.tools import demo

# Stands for npm: notes what it is asked for and does what npm would leave behind.
NPM = """#!/bin/sh
echo "$@" >> calls
case "$1" in
  ci) mkdir -p node_modules; touch node_modules/.package-lock.json ;;
  run) [ ! -e broken ] || {{ echo "cannot build" >&2; exit 3; }}
       mkdir -p ../pages; echo page > ../pages/index.html
       PYTHONPATH={project} {python} -c "from pathlib import Path
from supervised_reptile.tools.demo import sources_digest
print(sources_digest(Path('.')))" > ../pages/sources.sha256 ;;
esac
"""


@pytest.fixture
def web(tmp_path, monkeypatch):
    """A web folder with sources, and an npm that notes its calls in the file `calls`."""
    bin_dir, web = tmp_path / "bin", tmp_path / "web"
    (web / "src").mkdir(parents=True)
    bin_dir.mkdir()
    for name in ("package.json", "package-lock.json", "index.html", "src/demo.ts"):
        (web / name).write_text("{}")
        set_age(web / name, 100)
    (bin_dir / "npm").write_text(NPM.format(project=PROJECT, python=sys.executable))
    (bin_dir / "npm").chmod(0o755)
    monkeypatch.setenv("PATH", f"{bin_dir}{os.pathsep}{os.environ['PATH']}")
    return web


def set_age(path, seconds):
    now = path.stat().st_mtime
    os.utime(path, (now - seconds, now - seconds))


def calls(web):
    return (web / "calls").read_text().split("\n")[:-1] if (web / "calls").exists() else []


@pytest.fixture
def pages(web, tmp_path):
    """The folder that the npm above builds into."""
    return tmp_path / "pages"


def test_pages_are_built_once_and_again_when_a_source_changes(web, pages, capsys):
    assert demo.current_pages(pages, web) == pages
    assert calls(web) == ["ci", "run build"]
    assert "npm ci && npm run build" in capsys.readouterr().out
    demo.current_pages(pages, web)
    assert calls(web) == ["ci", "run build"]
    assert capsys.readouterr().out == ""

    (web / "src" / "demo.ts").touch()  # the content counts, as a clone's times say nothing
    demo.current_pages(pages, web)
    assert calls(web) == ["ci", "run build"]

    (web / "src" / "demo.ts").write_text("changed")
    demo.current_pages(pages, web)
    assert calls(web) == ["ci", "run build", "run build"]

    (web / "src" / "new.ts").write_text("")
    set_age(web / "node_modules" / ".package-lock.json", 200)
    demo.current_pages(pages, web)
    assert calls(web)[3:] == ["ci", "run build"]


def test_a_build_that_fails_shows_why(web, pages, capsys):
    (web / "broken").touch()
    with pytest.raises(RunError, match=r"^`npm run build` in .* failed: see above$"):
        demo.current_pages(pages, web)
    assert "cannot build" in capsys.readouterr().err


def test_without_npm_the_command_is_told(web, pages, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    assert shutil.which("npm") is None
    with pytest.raises(RunError) as error:
        demo.current_pages(pages, web)
    assert f"(cd {web} && npm ci && npm run build)" in str(error.value)


def test_without_npm_older_pages_are_served_and_it_says_so(web, pages, monkeypatch, capsys):
    demo.current_pages(pages, web)
    (web / "index.html").write_text("changed")
    monkeypatch.setenv("PATH", "/nowhere")
    capsys.readouterr()
    assert demo.current_pages(pages, web) == pages
    assert capsys.readouterr().out == (
        f"the pages are older than their sources; with npm: (cd {web} && npm ci && npm run build)\n"
    )


def test_outside_a_checkout(pages):
    with pytest.raises(RunError, match="there are no built pages"):
        demo.current_pages(pages, None)
    pages.mkdir()
    (pages / "index.html").touch()
    assert demo.current_pages(pages, None) == pages


def test_the_committed_pages_are_those_of_the_sources():
    digest = (demo.PAGES / "sources.sha256").read_text().strip()
    assert digest == demo.sources_digest(demo.WEB), "run npm run build in web/"
    for name in ("index.html", "figure.html", "model/model.bin"):
        assert (demo.PAGES / name).is_file()
    assert sum(f.stat().st_size for f in demo.PAGES.rglob("*") if f.is_file()) < 3_000_000


@pytest.fixture
def serving(tmp_path):
    """The command in a process of its own, on pages that are built already."""
    pages = tmp_path / "dist"
    (pages / "assets").mkdir(parents=True)
    (pages / "index.html").write_text("<title>page</title>")
    (pages / "assets" / "code.js").write_text("1")
    (pages / "assets" / "model.bin").write_bytes(b"\0\1")
    code = f"""
import sys, pathlib
from supervised_reptile.tools import demo
demo.current_pages.__defaults__ = (pathlib.Path({str(pages)!r}), None)
demo.main(["demo", *sys.argv[1:]])
"""

    def start(*arguments):
        process = subprocess.Popen(
            [sys.executable, "-c", code, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # A shell's background job, such as these tests may be, ignores Ctrl-C.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        processes.append(process)
        return process

    processes = []
    yield start
    for process in processes:
        process.kill()
        process.wait()


def test_it_serves_files_to_this_machine_alone_until_interrupted(serving):
    process = serving("--port", "0")
    line = process.stdout.readline()
    url = re.fullmatch(r"Draw and classify:  (http://127\.0\.0\.1:\d+/)\n", line)[1]
    with urllib.request.urlopen(url) as response:
        assert response.read() == b"<title>page</title>"
    with urllib.request.urlopen(f"{url}assets/code.js") as response:
        assert response.headers["Content-Type"] == "text/javascript"
    with urllib.request.urlopen(f"{url}assets/model.bin") as response:
        assert response.read() == b"\0\1"
    for path, code in (("../secret", 404), ("%00", 400), ("assets/", 404), ("a%00b", 400)):
        with pytest.raises(urllib.error.HTTPError) as error:
            urllib.request.urlopen(f"{url}{path}")
        assert error.value.code == code, path

    port = url.rpartition(":")[2].strip("/")
    second = serving("--port", port)
    assert second.wait(60) == 1
    assert re.fullmatch(
        rf"demo: error: --port: cannot serve on port {port}: .+\n", second.stderr.read()
    )

    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 0
    assert "Ctrl-C" in process.stdout.read()
    assert process.stderr.read() == ""


def test_the_server_listens_on_loopback_only(tmp_path):
    with demo.make_server(tmp_path, 0) as server:
        assert server.server_address[0] == "127.0.0.1"


def test_the_sources_it_watches_are_there():
    web = Path(__file__).resolve().parents[1] / "web"
    assert web == demo.WEB
    for name in (*demo.SOURCES, "package.json", "package-lock.json"):
        assert (web / name).exists(), name
