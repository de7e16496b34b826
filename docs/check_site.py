"""Checks the built documentation: python docs/check_site.py [FOLDER].

Every link and anchor inside the site must lead somewhere, and no page may load anything from the
network. FOLDER is build/site by default.
"""

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit


class PageParser(HTMLParser):
    """Collects the anchors of a page, what it links to, and what it loads."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.anchors, self.links, self.loads = set(), set(), set()
        self.feed(page.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Called for each tag."""
        given = {name: value for name, value in attrs if value}
        self.anchors |= {given[name] for name in ("id", "name") if name in given}
        if tag == "a" and "href" in given:
            self.links.add(given["href"])
        elif tag == "link" and given.get("rel") not in ("canonical", "prev", "next"):
            self.loads.add(given.get("href", ""))
        elif "src" in given:
            self.loads.add(given["src"])


def problems(site: Path) -> list[str]:
    """What is wrong with a site, one line each."""
    pages = {path: PageParser(path) for path in sorted(site.rglob("*.html"))}
    found = [] if pages else [f"{site}: no pages"]
    for path, page in pages.items():
        if path.name == "404.html":  # its links start at the root of a server
            continue
        where = path.relative_to(site)
        for url in sorted(page.links | page.loads):
            parts = urlsplit(url)
            if parts.scheme or parts.netloc:
                if url in page.loads and parts.scheme != "data":
                    found.append(f"{where}: loads {url} from the network")
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            anchor = unquote(parts.fragment)
            if not target.exists():
                found.append(f"{where}: {url} leads nowhere")
            elif anchor and target in pages and anchor not in pages[target].anchors:
                found.append(f"{where}: {url} has no such anchor")
    return found


if __name__ == "__main__":
    wrong = problems(Path(sys.argv[1] if len(sys.argv) > 1 else "build/site").resolve())
    print(*wrong, sep="\n")
    sys.exit(f"{len(wrong)} problems" if wrong else None)
