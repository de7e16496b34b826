"""What MkDocs does not do by itself for this project's documentation; see mkdocs.yml.

The site is the README, the pages of docs/, one page for each public name, and every file of the
project that a page links to.
"""

import html
import os
import posixpath
import re
from pathlib import Path
from urllib.parse import unquote

import latex2mathml.converter
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from site_docstrings import public_objects

PROJECT = Path(__file__).resolve().parents[1]
# The order of the pages; others come after these.
FIRST = (
    *("data", "runs", "reliability", "own-models", "any-model", "pretrained", "formats"),
    *("platforms", "faithfulness", "performance", "scaling", "reproduction"),
)
_LINK = re.compile(r"(?<=\]\()[^)\s]+(?=\))")
_FENCED = re.compile(r"^(```|~~~).*?^\1", re.DOTALL | re.MULTILINE)
_FORMULA = re.compile(
    r'<(?P<tag>div|span) class="arithmatex">\\[\[(](?P<latex>.*?)\\[\])]</(?P=tag)>', re.DOTALL
)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the README, the pages of the API, and what pages link to."""
    if "index.md" not in files.src_uris:
        files.append(File.generated(config, "index.md", abs_src_path=str(PROJECT / "README.md")))
    for name, path in public_objects().items():
        files.append(File.generated(config, f"reference/{name}.md", content=_api_page(name, path)))
    pages = [f for f in files.documentation_pages() if not f.src_uri.startswith("reference/")]
    while pages:
        page = pages.pop()
        for target in _linked_files(page, config):
            added = _copy(target, config)
            if added.src_uri not in files.src_uris:
                files.append(added)
                pages += [added] if added.is_documentation_page() else []
    names = [Path(f.src_uri).stem for f in files.documentation_pages() if "/" not in f.src_uri]
    rest = sorted(set(names) - set(FIRST) - {"index"})
    ordered = ["index", *(name for name in FIRST if name in names), *rest]
    reference = [{name: f"reference/{name}.md"} for name in public_objects()]
    config.nav = [*(f"{name}.md" for name in ordered), {"Reference": reference}]
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Makes links out of docs/ into links to the site's copy."""
    if page.file.src_uri.startswith("reference/"):
        return markdown

    def moved(match: re.Match) -> str:
        target, anchor = _target(match[0], page.file, config)
        if target is None or not target.exists():
            return match[0]  # MkDocs reports it
        here = posixpath.dirname(page.file.src_uri)
        return posixpath.relpath(_place(target, config), here or ".") + anchor

    return _outside_of_code(lambda text: _LINK.sub(moved, text), markdown)


def on_page_content(content: str, **_: object) -> str:
    """Turns LaTeX into MathML, which browsers draw without a script."""

    def mathml(match: re.Match) -> str:
        display = "block" if match["tag"] == "div" else "inline"
        return latex2mathml.converter.convert(html.unescape(match["latex"]), display=display)

    return _FORMULA.sub(mathml, content)


def _api_page(name: str, path: str) -> str:
    return f"---\ntitle: {name}\n---\n\n::: {path}\n"


def _linked_files(page: File, config: MkDocsConfig) -> list[Path]:
    """Files and folders of the project that a page links to and that are not in docs/."""
    text = _FENCED.sub("", page.content_string)
    targets = (_target(link, page, config)[0] for link in _LINK.findall(text))
    known = PROJECT / "README.md", Path(config.docs_dir)
    return [t for t in targets if t and t.exists() and not {t, *t.parents} & {*known}]


def _copy(target: Path, config: MkDocsConfig) -> File:
    """A file of the project in the site; of a folder, a list of what is in it."""
    place = _place(target, config)
    if target.is_file():
        return File.generated(config, place, abs_src_path=str(target))
    names = sorted(path.name for path in target.iterdir() if not path.name.startswith((".", "_")))
    title = target.relative_to(PROJECT).as_posix()
    items = [f"- `{name}`" for name in names]
    return File.generated(config, place, content="\n".join([f"# {title}\n", *items]))


def _target(link: str, page: File, config: MkDocsConfig) -> tuple[Path | None, str]:
    """The file a relative link means, and the anchor in it."""
    path, hash_sign, anchor = link.partition("#")
    if not path or re.match(r"[a-z]+:|/", path) or page.abs_src_path is None:
        return None, ""
    folder = Path(page.abs_src_path).parent
    return Path(os.path.normpath(folder / unquote(path))), hash_sign + anchor


def _place(target: Path, config: MkDocsConfig) -> str:
    """Where a file of the project is in the site."""
    if target == PROJECT / "README.md":
        return "index.md"
    docs = Path(config.docs_dir)
    if docs in target.parents:
        return target.relative_to(docs).as_posix()
    place = f"files/{target.relative_to(PROJECT).as_posix()}"
    return f"{place}/index.md" if target.is_dir() else place


def _outside_of_code(change, markdown: str) -> str:
    parts, end = [], 0
    for fenced in _FENCED.finditer(markdown):
        parts += [change(markdown[end : fenced.start()]), fenced[0]]
        end = fenced.end()
    return "".join([*parts, change(markdown[end:])])
