"""Where a model comes from, as people write it: a URL, or a repository of the Hugging Face Hub."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from ..errors import InvalidRequest

__all__ = ["HubSource", "UrlSource", "parse_source"]

ALLOWED = "the URL of a GGUF file, hf://ORG/REPO/FILE.gguf, ORG/REPO or ORG/REPO:QUANTIZATION"
_NAME = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,95}"
_REPO = re.compile(
    rf"(?P<repo>{_NAME}/{_NAME}?)(@(?P<revision>[\w./-]+?))?(:(?P<quant>[\w.-]+)|/(?P<file>.+))?$",
    re.ASCII,
)
_PAGE = re.compile(
    rf"/(?P<repo>{_NAME}/{_NAME})(/(resolve|blob|raw)/(?P<revision>[^/]+)/(?P<file>.+))?/?$",
    re.ASCII,
)
_HUBS = ("huggingface.co/", "www.huggingface.co/", "hf.co/")


_PART = re.compile(r"-(\d{5})-of-(\d{5})(?=\.gguf)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class UrlSource:
    """A file at a URL; `filename` is the last part of its path."""

    url: str
    filename: str

    def parts(self) -> tuple[UrlSource, ...]:
        """All files of the model, when this is the first of one that is cut into parts, else this
        one alone. Raises InvalidRequest for a part that is not the first."""
        found = _PART.search(self.filename)
        if found is None:
            return (self,)
        count = int(found[2])
        if int(found[1]) != 1 or not 1 <= count <= 1000 or found.group() not in self.url:
            raise InvalidRequest(
                f"{self.filename} is a part of a model, and not its first",
                field="source",
                value=self.url,
                allowed="the first of several parts",
            )
        names = [f"-{number:05}-of-{found[2]}" for number in range(1, count + 1)]
        url, filename = self.url.rpartition(found.group()), self.filename.partition(found.group())
        return tuple(
            UrlSource(url[0] + name + url[2], filename[0] + name + filename[2]) for name in names
        )


@dataclass(frozen=True, slots=True)
class HubSource:
    """A GGUF file of a repository: `file` is its path there, or else `quant` chooses it ("" is the
    usual one). `revision` is a branch, tag or commit."""

    repo: str
    file: str = ""
    quant: str = ""
    revision: str = "main"


def parse_source(text: str, hub: str = "https://huggingface.co") -> UrlSource | HubSource:
    """What *text* means; *hub* is the Hub's address. Raises InvalidRequest (field "source")."""
    text = text.strip()
    if re.match(r"https?://", text, re.IGNORECASE):
        return _from_url(text, hub)
    bare = text.removeprefix("hf://")
    for prefix in _HUBS:
        bare = bare.removeprefix(prefix)
    found = _REPO.fullmatch(bare)
    if found is None or _leads_away(found["file"] or ""):
        raise _refuse(text)
    return HubSource(
        repo=found["repo"],
        file=found["file"] or "",
        quant=found["quant"] or "",
        revision=found["revision"] or "main",
    )


def _from_url(url: str, hub: str) -> UrlSource | HubSource:
    try:
        parts = urlsplit(url)
    except ValueError:
        raise _refuse(url) from None
    hosts = {urlsplit(hub).netloc, *(name.rstrip("/") for name in _HUBS)}
    page = _PAGE.fullmatch(unquote(parts.path)) if parts.netloc.lower() in hosts else None
    if page is not None and not _leads_away(page["file"] or ""):
        return HubSource(page["repo"], page["file"] or "", "", page["revision"] or "main")
    name = unquote(parts.path).rsplit("/", 1)[-1]
    if not name:
        raise _refuse(url)
    return UrlSource(url, name)


def _leads_away(file: str) -> bool:
    return any(part in ("", ".", "..") for part in file.split("/")) if file else False


def _refuse(text: str) -> InvalidRequest:
    shown = text if len(text) <= 100 else f"{text[:97]}..."
    return InvalidRequest(
        f"{shown!r} is no source of a model", field="source", value=text, allowed=ALLOWED
    )
