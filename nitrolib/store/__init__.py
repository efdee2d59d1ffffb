"""What is kept between requests: threads, messages, assistants, runs, responses.

with Store.open("sqlite:///threads.db") as store:
    thread = store.threads.create(title="A chat")
    store.messages.create(thread.id, role="user", content=[text_part("Hello")])
    page = store.messages.list(thread.id, order="asc")
"""

from __future__ import annotations

from .ids import check_id, is_id, new_id
from .jan_files import Imported, import_jan
from .records import (
    ACTIVE,
    Assistant,
    Json,
    Message,
    MessageFile,
    Order,
    Page,
    Run,
    StoredResponse,
    Thread,
    text_of,
    text_part,
)
from .store import Store

__all__ = [
    "ACTIVE",
    "Assistant",
    "Imported",
    "Json",
    "Message",
    "MessageFile",
    "Order",
    "Page",
    "Run",
    "Store",
    "StoredResponse",
    "Thread",
    "check_id",
    "import_jan",
    "is_id",
    "new_id",
    "text_of",
    "text_part",
]
