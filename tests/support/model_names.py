"""Texts that somebody might send as a model's id or as the name of a file."""

from __future__ import annotations

BAD_IDS = (
    "", ".", "..", "/", "//", "a/", "/a", "a//b", "../a", "a/..", "a/../b", "./a", "a/.", "..\\a",
    "a\\b", "\\\\server\\share", "C:\\a", "C:a", "c:/a", "/etc/passwd", "~/../a/..", "a\0b", "a\nb",
    "a\x7fb", "\ud800", "a\u202eb", ".hidden", "a/.hidden", "a.", "a ", " a", "a./b", "con", "NUL",
    "nul.gguf", "a/COM1", "lpt9.txt", "a:b", "a*", "a?", 'a"b', "<a>", "a|b", "a/b/c/d/e",
    "x" * 121, "é" * 61, "a\u2028b",
)  # fmt: skip
GOOD_IDS = (
    "a", "zephyr-7b", "org/name", "Org_1/Name.v2-Q4_K_M", "a/b/c/d", "Mistral 7B", "模型/七", "~a",
    "a..b", "model@1.0", "x" * 120, "console", "com10", "-rf", "%2e%2e", "$HOME", "a'b",
)  # fmt: skip
