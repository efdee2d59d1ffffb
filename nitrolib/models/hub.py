"""The Hugging Face Hub: which file a repository offers, its size and its sum. Through
huggingface_hub, imported when it is used."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ..errors import BackendUnavailable, DownloadError
from .manifest import ModelFile
from .policy import refusal

if TYPE_CHECKING:
    from .policy import FetchPolicy
    from .source import HubSource

__all__ = ["endpoint", "resolve", "token"]

# What is taken of several quantizations when nobody says: the usual trade of size and quality.
_USUAL = ("Q4_K_M", "Q4_K_S", "Q4_0", "Q5_K_M", "Q8_0")
_PART = re.compile(r"-(\d{5})-of-(\d{5})\.gguf$", re.IGNORECASE)


def endpoint(policy: FetchPolicy) -> str:
    """Address of the Hub, without a slash at its end."""
    if policy.endpoint is not None:
        return policy.endpoint.rstrip("/")
    return str(_library().constants.ENDPOINT).rstrip("/")


def token() -> str | None:
    """The user's token for the Hub, if there is one."""
    found = _library().get_token()
    return None if found is None else str(found)


def resolve(source: HubSource, policy: FetchPolicy) -> tuple[ModelFile, ...]:
    """The files of a model, the one to load first, each with its URL at the commit of now, its size
    and its SHA-256. Raises DownloadError: reason "source" for what is not there, or not one file;
    "network" where the Hub cannot be reached."""
    hub = endpoint(policy)
    policy.check_url(hub)
    info = _ask(source, policy, hub)
    files = {file.rfilename: file for file in info.siblings or ()}
    names = _parts(_choose(source, list(files)), list(files))
    return tuple(_file(hub, info.id, info.sha, files[name]) for name in names)


def _ask(source: HubSource, policy: FetchPolicy, hub: str) -> Any:
    library = _library()
    import httpx

    try:
        return library.HfApi(endpoint=hub).model_info(
            source.repo,
            revision=source.revision,
            files_metadata=True,
            timeout=policy.read_timeout_s,
        )
    except library.errors.GatedRepoError as error:
        raise refusal(
            f"{source.repo} asks for an agreement first: accept it on its page, and set HF_TOKEN"
        ) from error
    except library.errors.HFValidationError as error:
        raise refusal(f"{source.repo!r} is no name of a repository") from error
    except (library.errors.HfHubHTTPError, httpx.HTTPError, OSError) as error:
        if getattr(getattr(error, "response", None), "status_code", 0) in (401, 403, 404):
            raise refusal(
                f"{urlsplit(hub).netloc} has no {source.repo} at {source.revision}, or it is "
                "private"
            ) from error
        raise DownloadError(
            f"{urlsplit(hub).netloc} cannot be asked: {str(error).splitlines()[0]}",
            reason="network",
        ) from error


def _choose(source: HubSource, names: list[str]) -> str:
    """The file that is meant, of all files of the repository."""
    if source.file:
        if source.file in names:
            return source.file
        raise refusal(f"{source.repo} has no file {source.file!r}")
    models = [name for name in names if _is_model(name)]
    if not models:
        raise refusal(f"{source.repo} has no GGUF file")
    for quant in (source.quant,) if source.quant else _USUAL:
        found = [name for name in models if _has_word(name, quant)]
        if len(found) == 1:
            return found[0]
        if len(found) > 1 and source.quant:
            raise refusal(f"{source.repo} has several {quant}: name one of {_listed(found)}")
    if len(models) == 1 and not source.quant:
        return models[0]
    what = f"no {source.quant}" if source.quant else "several files"
    raise refusal(f"{source.repo} has {what}: name one of {_listed(models)}")


def _is_model(name: str) -> bool:
    """Whether a file can be loaded as a model; of one in several parts only the first."""
    part = _PART.search(name)
    first = part is None or int(part[1]) == 1
    return name.lower().endswith(".gguf") and "mmproj" not in name.lower() and first


def _has_word(name: str, quant: str) -> bool:
    pattern = rf"(?<![a-z0-9]){re.escape(quant.lower())}(?![a-z0-9_])"
    return re.search(pattern, name.lower()) is not None


def _parts(name: str, names: list[str]) -> list[str]:
    """All files of a model that is cut into parts, from the first one on."""
    part = _PART.search(name)
    if part is None:
        return [name]
    count = int(part[2])
    wanted = [f"{name[: part.start()]}-{n:05}-of-{part[2]}.gguf" for n in range(1, count + 1)]
    missing = [one for one in wanted if one not in names]
    if missing:
        raise refusal(f"{missing[0]} is missing, a part of {name}")
    return wanted


def _file(hub: str, repo: str, commit: str, file: Any) -> ModelFile:
    url = _library().hf_hub_url(repo, file.rfilename, revision=commit, endpoint=hub)
    digest = None if file.lfs is None else file.lfs.sha256
    return ModelFile(
        filename=file.rfilename.rsplit("/", 1)[-1], url=str(url), sha256=digest, size=file.size
    )


def _listed(names: list[str]) -> str:
    shown = ", ".join(sorted(names)[:12])
    return shown if len(names) <= 12 else f"{shown}, ... ({len(names)} in all)"


def _library() -> Any:
    try:
        import huggingface_hub
        import huggingface_hub.constants
        import huggingface_hub.errors
    except ModuleNotFoundError as error:
        raise BackendUnavailable(
            "downloads need huggingface_hub: pip install 'nitrolib[models]'",
            hint="pip install 'nitrolib[models]'",
        ) from error
    return huggingface_hub
