"""Whether a file that is on its way is a model that can run here, told by its first bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import BackendUnavailable, InvalidRequest, ModelFileError
from .policy import refusal

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["judge"]


def judge(name: str, size: int, more: Callable[[int], bytes], *, backend: str, first: bool) -> None:
    """Read a header through *more*, as `nitrolib.gguf.read_gguf` does, and refuse what is not worth
    fetching: no GGUF file, a damaged one, one that no installed backend (or not *backend*) runs.

    first: the file that is loaded; a further one of the model only has to be sound. Raises
    DownloadError with reason "source", and whatever *more* raises.
    """
    from .. import backends
    from ..gguf import read_gguf

    try:
        file = read_gguf(name, size, more)
        if first:
            backends.choose_file(file, backend)
    except (ModelFileError, BackendUnavailable) as error:
        raise refusal(f"it is no model that can run here: {error.message}") from error
    except InvalidRequest as error:
        raise refusal(error.message) from error
