"""Adds top-level documents to MkDocs, and rewrites links that leave docs/.

The documents stay plain Markdown whose links work where they are read as files. On the site a link
to a document leads to its page, by its title, a picture is copied, and any other file is shown in
the repository.
"""

import pathlib
import posixpath
import re

from mkdocs.structure.files import File

ROOT = pathlib.Path(__file__).parent.parent
PAGES = {  # by their names on the site
    "index.md": "README.md",
    "building.md": "BUILD.md",
    "contributing.md": "CONTRIBUTING.md",
    "changelog.md": "CHANGELOG.md",
}
PICTURES = (".png", ".svg", ".gif")
LINK = re.compile(r"\[([^\]]*)\]\(([^)\s#:]+)((?:#[^)\s]*)?)\)")
SIZED = re.compile(r'(?<=<img src=")[^":]+')  # a picture of a given width is HTML


def on_files(files, config):
    """Adds the pages, and the pictures that they show from other folders."""
    for page, source in PAGES.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=text))
    for page in list(files.documentation_pages()):
        for target in _targets(page.src_uri, page.content_string):
            if target.endswith(PICTURES) and not target.startswith("docs/"):
                files.append(File.generated(config, target, abs_src_path=str(ROOT / target)))
    return files


def on_page_markdown(markdown, page, config, files):
    """Rewrites links as they are on the site."""

    def on_site(link):
        text, target, anchor = link.groups()
        path = _in_repository(page.file.src_uri, target)
        if text in (target, path) and path.endswith(".md") and (ROOT / path).exists():
            text = (ROOT / path).read_text(encoding="utf-8").partition("\n")[0].lstrip("# ")
        return f"[{text}]({_on_site(target, path, config)}{anchor})"

    def picture(source):
        path = _in_repository(page.file.src_uri, source[0])
        return _on_site(source[0], path, config)

    return SIZED.sub(picture, LINK.sub(on_site, markdown))


def _targets(page: str, markdown: str) -> list[str]:
    """Returns the files of the repository that a page links to."""
    return [_in_repository(page, link[2]) for link in LINK.finditer(markdown)]


def _in_repository(page: str, link: str) -> str:
    folder = "" if page in PAGES else "docs"
    return posixpath.normpath(posixpath.join(folder, link))


def _on_site(link: str, target: str, config) -> str:
    own = {source: name for name, source in PAGES.items()}
    if target in own:
        return own[target]
    if target.startswith("docs/") or target.endswith(PICTURES):
        return target.removeprefix("docs/")
    if (ROOT / target).exists():
        return f"{config.repo_url}/blob/main/{target}"
    return link  # MkDocs says that it is not there
