"""GBNF means what llama.cpp says it means; what is wrong with a grammar is told by line."""

from __future__ import annotations

import pytest
from support.random_answers import VOCABULARY, answer

from nitrolib.errors import InvalidRequest
from nitrolib.sampling.constraint import compile_source
from nitrolib.sampling.constraint_gbnf import MAX_GRAMMAR_BYTES

JSON = r"""
# JSON as the examples of llama.cpp write it
root   ::= object
value  ::= object | array | string | number | ("true" | "false" | "null") ws

object ::=
  "{" ws (
            string ":" ws value
    ("," ws string ":" ws value)*
  )? "}" ws

array  ::=
  "[" ws (
            value
    ("," ws value)*
  )? "]" ws

string ::=
  "\"" (
    [^"\\\x7F\x00-\x1F] |
    "\\" (["\\bfnrt] | "u" [0-9a-fA-F]{4}) # escapes
  )* "\"" ws

number ::= ("-"? ([0-9] | [1-9] [0-9]{0,15})) ("." [0-9]+)? ([eE] [-+]? [0-9] [1-9]{0,15})? ws

# Optional space: by convention, applied in this grammar after literal chars when allowed
ws ::= | " " | "\n" [ \t]{0,20}
"""


def accepts(grammar: str, text: str) -> bool:
    state = compile_source("grammar", grammar, VOCABULARY).start()
    for byte in text.encode():
        if not state.allows(byte):
            return False
        state.accept(byte)
    return state.may_end


@pytest.mark.parametrize(
    ("grammar", "good", "bad"),
    [
        ('root ::= "yes" | "no"', ["yes", "no"], ["y", "maybe", ""]),
        ('root ::= ""', [""], ["a"]),
        ('root ::= "a" |', ["a", ""], ["b"]),
        ('root ::= "ab"{2}', ["abab"], ["ab", "abb", "ababab"]),
        ('root ::= "a"{2,}', ["aa", "aaaa"], ["a"]),
        ('root ::= "a"{ 0 , 2 }', ["", "aa"], ["aaa"]),
        ('root ::= "ab"? "c"*  "d"+', ["d", "abccdd"], ["a", "abc"]),
        ("root ::= [a-c]+ [^a-c]", ["abcd", "a\n", "aé"], ["abc", "d"]),
        (r"root ::= [\]\[\\\n-]", ["]", "[", "\\", "\n", "-"], ["a", "n"]),
        ("root ::= [a&&b]+", ["a&b"], ["c"]),
        ("root ::= [a-]", ["a", "-"], ["b"]),
        ("root ::= .", ["\n", "é", "🙂"], ["", "ab"]),
        (r'root ::= "\x41\u00e9\U0001F642\"\t"', ['Aé🙂"\t'], ["A"]),
        (r"root ::= [\u3040-\u309f]+", ["ひらがな"], ["カ"]),
        ('root ::= a-b c_d2\na-b ::= "x"\nc_d2 ::= "y"', ["xy"], ["x"]),
        ('root ::= "a"\n  | "b"', None, None),
        ('root ::= "a" |\n  "b"', ["a", "b"], ["ab"]),
        ('root ::= (\n "a"\n | "b" # one\n)', ["a", "b"], [""]),
        ('# first\n\nroot ::= x # last\r\nx ::= "1"\n', ["1"], [""]),
        ('root ::= "(" root ")" | ""', ["", "()", "(())"], ["(", "())"]),
        ('root ::= root "a" | "b"', ["b", "baa"], ["a"]),
        ('root ::= "a" root | "a"', ["a", "aaa"], [""]),
        # What follows a repetition may begin as the repetition goes on.
        ('root ::= [a-z]+ "x"', ["ax", "axx", "xx"], ["x", "ab"]),
        ('root ::= item+\nitem ::= [a-z]+ "x" | "(" root ")"', ["ax(bx)", "(axx)"], ["(a)"]),
        ("root ::= [a-z]* [a-y] [a-z]*", ["zaz", "a"], ["zz"]),
        ('root ::= ("a"?)*', ["", "aaa"], ["b"]),
        ('start ::= "s"\nroot ::= start start', ["ss"], ["s"]),
        ("root ::= fooBar foobar\nfooBar ::= [0-9]\nfoobar ::= [a-z]", ["1a"], ["a1"]),
    ],
)
def test_texts_of_a_grammar(grammar: str, good: list[str] | None, bad: list[str] | None) -> None:
    if good is None or bad is None:
        with pytest.raises(InvalidRequest):
            compile_source("grammar", grammar, VOCABULARY)
        return
    for text in good:
        assert accepts(grammar, text), text
    for text in bad:
        assert not accepts(grammar, text), text


@pytest.mark.parametrize(
    ("grammar", "line", "reason"),
    [
        ("", 1, "no rule named root"),
        ('foo ::= "a"', 1, "no rule named root"),
        ('root ::= "a" foo', 1, "no rule is named foo"),
        ('root ::= x\n\nx ::= "a"\n  y ::= z', 4, "no rule is named z"),
        ('root = "a"', 1, "::= is missing"),
        ('\nroot ::= "a\n', 3, "ends inside"),
        ('root ::= "a"\n\nb ::= [a-', 3, "ends inside"),
        ('root ::= "a"\nb ::= [z-a]', 2, "wrong way round"),
        ('root ::= "a"\nb ::= []', 2, "an empty class"),
        ('root ::= ("a" | "b"', 1, r"\) is missing"),
        ('root ::= "a")', 1, "not expected"),
        ('root ::= "a"\nroot ::= "b"', 2, "a second rule named root"),
        ("root ::= * ", 1, "nothing to repeat"),
        ('root ::= "a"{2,1}', 1, "wrong way round"),
        ('root ::= "a"{', 1, "a number is missing"),
        ('root ::= "a"{1', 1, "} is missing"),
        ('root ::= "a"{2001}', 1, "more than 2000"),
        (r'root ::= "\q"', 1, "no such escape"),
        (r'root ::= "\x4"', 1, "hexadecimal"),
        (r'root ::= "\ud800"', 1, "no character"),
        (r'root ::= "\UFFFFFFFF"', 1, "no character"),
        ("root ::= <think>", 1, "tokens in a grammar"),
        ('root ::= "a" root', 1, "never ends"),
        ('root ::= "a"\nx ::= y\ny ::= x', 2, "never ends"),
        ("root ::= " + "(" * 100 + '"a"' + ")" * 100, 1, "nested groups"),
        ('root ::= "a" ; "b"', 1, "not expected"),
        ('"a" ::= b', 1, "rule name"),
    ],
)
def test_what_is_wrong_is_told_by_line(grammar: str, line: int, reason: str) -> None:
    with pytest.raises(InvalidRequest, match=reason) as caught:
        compile_source("grammar", grammar, VOCABULARY)
    assert caught.value.field == "grammar"
    assert caught.value.facts["line"] == line


@pytest.mark.parametrize(
    "grammar",
    [
        "#" * (MAX_GRAMMAR_BYTES + 1),
        f'root ::= "{"a" * 21_000}"',
        "root ::= " + "[a] " * 21_000,
        'root ::= "a"\n' + "".join(f"r{i} ::= root\n" for i in range(1001)),
        "root ::= " + '"a"? ' * 1001,
        'root ::= "a"*?+',
    ],
)
def test_a_grammar_that_is_too_large_is_refused(grammar: str) -> None:
    with pytest.raises(InvalidRequest, match=r"longer than|more than"):
        compile_source("grammar", grammar, VOCABULARY)


def test_a_long_chain_of_rules_is_no_danger_to_the_process() -> None:
    rules = "".join(f'r{i} ::= "(" ((r{i + 1})) ")"\n' for i in range(300))
    grammar = f'root ::= r0\n{rules}r300 ::= "x"'
    assert accepts(grammar, "(" * 300 + "x" + ")" * 300)


@pytest.mark.parametrize(
    "text", ['{"a": [1, -2.5e3, "\\u00e9\\n"], "b":{}}', '{\n  "k": null\n}', "{}"]
)
def test_the_json_grammar_of_llama_cpp(text: str) -> None:
    assert accepts(JSON, text)
    assert not accepts(JSON, text.replace("{", "(", 1))


@pytest.mark.parametrize("seed", range(5))
def test_a_random_model_follows_a_grammar(seed: int) -> None:
    found = answer(compile_source("grammar", JSON, VOCABULARY), seed, limit=300)
    assert found.refusals > 0
    assert found.text.startswith(b"{")
    if found.finished:
        assert accepts(JSON, found.text.decode())
