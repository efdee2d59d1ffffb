"""Chat templates: what they render, what becomes special in it, and what they cannot do."""

from __future__ import annotations

import ast
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from support import chat_templates
from support.chat_templates import plain_render
from support.mini_vocabulary import MiniVocabulary

from nitrolib.errors import InvalidRequest, ModelFileError
from nitrolib.prompt import ChatTemplate, Message, Prompt, Segment, budget, encode

ROOT = Path(__file__).parents[2]
CONVERSATION = [
    Message("system", "Be brief."),
    Message("user", " Hi </s> x|y "),
    Message("assistant", "<think>hm</think>\nHello"),
    Message("user", "Bye <|im_end|>"),
]


def as_dicts(messages: list[Message]) -> list[dict[str, str]]:
    return [{"role": message.role, "content": message.content} for message in messages]


def render(source: str, *contents: str) -> Prompt:
    return ChatTemplate(source, "<s>", "</s>").render([Message("user", text) for text in contents])


def special(prompt: Prompt) -> str:
    """The template's own text, with a dot for every run of message text."""
    return "".join(part.text if part.special else "." for part in prompt.segments)


@pytest.mark.parametrize("name", chat_templates.ALL)
def test_tracing_changes_nothing_of_the_text(name: str):
    source = chat_templates.ALL[name]
    rendered = ChatTemplate(source, "<s>", "</s>").render(CONVERSATION)
    assert rendered.text == plain_render(source, as_dicts(CONVERSATION))


def test_chatml_joined_in_one_expression_keeps_content_apart():
    prompt = ChatTemplate(chat_templates.CHATML).render([Message("user", " <|im_end|> ")])
    assert prompt.segments == (
        Segment("<|im_start|>user\n", special=True),
        Segment("<|im_end|>", special=False),
        Segment("<|im_end|>\n<|im_start|>assistant\n", special=True),
    )


def test_bos_in_the_template_is_never_doubled():
    vocabulary = MiniVocabulary()
    prompt = ChatTemplate(chat_templates.LLAMA_2, "<s>", "</s>").render([Message("user", "Hi")])
    assert not prompt.add_bos
    assert encode(prompt, vocabulary, vocabulary.tokenize).count(vocabulary.bos) == 1
    assert ChatTemplate(chat_templates.CHATML, "<s>").render([Message("user", "<s>")]).add_bos
    assert render("{{ messages[0].content }}", "<s>").add_bos


def test_roles_build_control_tokens_only_where_they_are_the_usual_ones():
    template = ChatTemplate(chat_templates.PHI)
    assert template.render([Message("user", "x")]).segments[0] == Segment(
        "<|user|>\n", special=True
    )
    odd = template.render([Message("end", "x")])
    assert special(odd) == "<|.|>\n.<|end|>\n<|assistant|>\n"


@pytest.mark.parametrize(
    ("expression", "content", "template_text"),
    [
        ("'<|im_' ~ c ~ '|>'", "end", "<|im_.|>"),
        ("c | replace('x', '')", "<|im_xend|>", "."),
        ("c.replace('x', '|')", "<ximxend>", ".|.|."),
        ("c | replace('x', '<s>')", "x", "<s>"),
        ("c | lower", "<|IM_END|>", "."),
        ("c.split('</think>') | join", "<|im_</think>end|>", "."),
        ("c.split('</think>')[-1] + '<s>'", "a</think>b", ".<s>"),
        ("c.rsplit('|', 1)[0] ~ '|'", "a|b|c", ".|"),
        ("('<s>' ~ c).strip()", "  a ", "<s>."),
        ("(c ~ '<s>')[1:]", "ab", ".<s>"),
        ("(c ~ '<s>')[::-1]", "ab", ">s<."),
        ("(c ~ '<s>') | upper", "ab", ".<S>"),
        ("(c ~ '<s>').removesuffix('<s>')", "ab", "."),
        ("(c ~ '<s>').removeprefix('a')", "ab", ".<s>"),
        ("(c ~ '<s>').partition('|') | join", "a|b", ".<s>"),
        ("(c ~ '<s>').splitlines() | join('\n')", "a\r\nb", ".\n.<s>"),
        ("(c ~ '<s>').split() | join(' ')", " a  b ", ". . <s>"),
        ("['<s>', c] | map('trim') | join('!')", " a ", "<s>!."),
        ("'<s>' * 2 + c", "a", "<s><s>."),
        ("'<s>' if 'a' in c else ''", "a", "<s>"),
        ("c | default('<s>')", "a", "."),
        ("nothing | default('<s>')", "a", "<s>"),
        ("{'k': '<s>'}['k'] ~ ('<s>', c)[1]", "a", "<s>."),
        ("['<s>'] | first ~ c | length", "a", "<s>."),
        ("'<s>' | title", "a", "<S>"),
        ("('a\nb' ~ c) | indent(1)", "\nc", "a. b. ."),
    ],
)
def test_provenance_survives(expression: str, content: str, template_text: str):
    source = "{%- set c = messages[0].content -%}{{- (" + expression + ") -}}"
    prompt = render(source, content)
    assert special(prompt) == template_text
    assert prompt.text == plain_render(source, [{"role": "user", "content": content}])


@pytest.mark.parametrize("expression", ["'%s!' % c", "c | tojson", "c | escape", "c | urlencode"])
def test_where_provenance_is_lost_the_text_counts_as_the_users(expression: str):
    prompt = render("{%- set c = messages[0].content + '<s>' -%}{{- (" + expression + ") -}}", "a")
    assert not any(part.special for part in prompt.segments)


def test_macros_blocks_and_captures_keep_provenance():
    source = (
        "{% macro m(x) %}<s>{{ x }}{{ caller() }}{% endmacro %}"
        "{% set kept %}{% call m(messages[0].content) %}</s>{% endcall %}{% endset %}"
        "{% filter trim %} {{ kept }}{% endfilter %}{% block b %}<s>{% endblock %}"
    )
    assert special(render(source, "x")) == "<s>.</s><s>"


def test_loops_can_be_left_and_generation_marks_have_no_effect():
    source = (
        "{% for m in messages %}{% if loop.index > 1 %}{% break %}{% endif %}"
        "{% generation %}{{ m.content }}{% endgeneration %}{% endfor %}"
    )
    assert render(source, "a", "b").text == "a"


def test_tojson_writes_as_transformers_does():
    source = "{{ {'b': 'é<', 'a': [1]} | tojson(indent=2) }}"
    assert render(source, "").text == '{\n  "b": "é<",\n  "a": [\n    1\n  ]\n}'


def test_strftime_now_tells_the_date():
    year = render("{{ strftime_now('%Y') }}", "").text
    assert abs(int(year) - time.localtime().tm_year) <= 1


def test_raise_exception_is_the_callers_error_in_the_templates_words():
    with pytest.raises(InvalidRequest, match=r"^Conversation roles must alternate") as error:
        ChatTemplate(chat_templates.LLAMA_2).render([Message("user", "a"), Message("user", "b")])
    assert error.value.field == "messages"


def test_a_template_that_fails_on_the_messages_names_the_fault():
    with pytest.raises(InvalidRequest, match=r"chat template failed: .*no attribute .nothing"):
        render("{{ messages[0].content.nothing.more }}", "a")


@pytest.mark.parametrize(
    "source",
    [
        "{% if %}",
        "{{ 'x' | center(10) }}",
        "{% for m in messages %}",
        "{% autoescape true %}x{% endautoescape %}",
        "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
        "x" * 200_000,
    ],
    ids=["syntax", "filter", "unclosed", "autoescape", "deep", "long"],
)
def test_a_broken_template_is_a_model_file_error(source: str):
    with pytest.raises(ModelFileError) as error:
        ChatTemplate(source)
    assert error.value.key == "tokenizer.chat_template"


HOSTILE = {
    "internals": "{{ ''.__class__.__mro__ }}",
    "internals of a function": "{{ raise_exception.__globals__.x }}",
    "format": "{{ '{0.__class__}'.format(1) }}",
    "format width": "{{ '{:>99999999999}'.format(1) }}",
    "format width by item": "{{ '{:>99999999999}'['format'](1) }}",
    "format map": "{{ '{a:>99999999999}'.format_map({'a': 1}) }}",
    "padding": "{{ 'a'.ljust(10 ** 10) }}",
    "translate": "{{ 'a'.translate({97: 'x' * 1000}) }}",
    "change": "{{ messages.append(1) }}",
    "change of a message": "{{ messages[0].update({'role': 'x'}) }}",
    "repeat": "{{ 'a' * 10 ** 10 }}",
    "repeat list": "{% set x = [1] * 10 ** 10 %}",
    "power": "{{ 10 ** 10 ** 10 }}",
    "powers": "{% set n = namespace(x=10) %}{% for i in range(99) %}"
    "{% set n.x = n.x * n.x %}{% endfor %}",
    "width": "{{ '%99999999999d' % 1 }}",
    "star width": "{{ '%*d' % (99999999999, 1) }}",
    "round": "{{ 1.5 | round(10 ** 9, 'floor') }}",
    "indent": "{{ 'a' | indent(10 ** 10, true) }}",
    "json indent": "{{ [1] | tojson(indent=10 ** 10) }}",
    "range": "{% for i in range(10 ** 9) %}{% endfor %}",
    "doubling": "{% set n = namespace(x='aaaaaaaaaaaaaaaa') %}{% for i in range(99) %}"
    "{% set n.x = n.x ~ n.x %}{% endfor %}{{ n.x }}",
    "adding": "{% set n = namespace(x='aaaaaaaaaaaaaaaa') %}{% for i in range(99) %}"
    "{% set n.x = n.x + n.x %}{% endfor %}{{ n.x }}",
    "replacing": "{% set n = namespace(x='aaaaaaaaaaaaaaaa') %}{% for i in range(99) %}"
    "{% set n.x = n.x.replace('a', n.x) %}{% endfor %}",
    "joining": "{% set n = namespace(x='aaaaaaaaaaaaaaaa') %}{% for i in range(99) %}"
    "{% set n.x = n.x | join(n.x) %}{% endfor %}",
    "escaping": "{% set n = namespace(x='&') %}{% for i in range(99) %}"
    "{% set n.x = n.x | tojson %}{% endfor %}",
    "capturing": "{% set n = namespace(x='aaaaaaaaaaaaaaaa') %}{% for i in range(99) %}"
    "{% set y %}{{ n.x }}{{ n.x }}{% endset %}{% set n.x = y %}{% endfor %}",
    "lists of lists": "{% set n = namespace(x=[1]) %}{% for i in range(99) %}"
    "{% set n.x = [n.x, n.x] %}{% endfor %}{{ n.x }}",
    "mappings": "{% set n = namespace(x={}) %}{% for i in range(99) %}"
    "{% set n.x = {'a': n.x, 'b': n.x} %}{% endfor %}{{ n.x | tojson }}",
    "dict": "{% set n = namespace(x=1) %}{% for i in range(99) %}"
    "{% set n.x = dict(a=n.x, b=n.x) %}{% endfor %}{{ n.x }}",
    "namespaces": "{% set n = namespace(x=1) %}{% set n.x = [n, n] %}{{ n.x }}",
    "summing": "{{ [[1, 2]] | sum(start=[]) }}",
    "wide maps": "{% set w = ' ' * 100000 %}"
    "{{ range(99999) | map('indent', w, true) | list | length }}",
    "loops": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "output": "{% for a in range(99999) %}{% for b in range(99999) %}"
    "xxxxxxxx{% endfor %}{% endfor %}",
    "recursion": "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "branching": "{% macro m(d) %}{% if d %}{{ m(d - 1) }}{{ m(d - 1) }}{% endif %}{% endmacro %}"
    "{{ m(60) }}",
    "recursive loop": "{% for x in [1, 2] recursive %}{{ loop([1, 2]) }}{% endfor %}",
    "include": "{% include '/etc/passwd' %}",
    "import": "{% import 'os' as os %}",
    "extends": "{% extends 'x' %}",
    "lipsum": "{{ lipsum(n=10 ** 9) }}",
    "date": "{{ strftime_now('%Y' * 9999) }}",
    "output of a function": "{{ raise_exception }}",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_template_is_stopped(name: str, monkeypatch: pytest.MonkeyPatch):
    """In a moment, in little memory, with an error of ours."""
    monkeypatch.setattr(budget, "CPU_S", 0.2)
    started = time.thread_time()
    with pytest.raises((ModelFileError, InvalidRequest)) as error:
        render(HOSTILE[name], "hello")
    assert time.thread_time() - started < 10
    assert "hello" not in str(error.value)


@pytest.mark.parametrize(
    "source",
    [
        "{{ ''['__class__'] }}{{ messages['__class__'] }}{{ messages[0].__class__ }}",
        "{{ messages | map(attribute='__class__') | join }}",
        "{{ raise_exception.__globals__ }}{{ range.__self__ }}{{ self.__init__ }}",
        "{{ namespace().__class__ }}{{ (1).__class__ }}{{ 'a'.encode }}",
    ],
)
def test_python_internals_are_undefined(source: str):
    assert render(source, "hello").text == ""


def test_a_long_conversation_is_within_the_budget():
    """Templates that gather everything in one string copy it again with every message."""
    source = (
        "{% set n = namespace(x='') %}{% for m in messages %}"
        "{% set n.x = n.x ~ m.role ~ m.content %}{% endfor %}{{ n.x }}"
    )
    prompt = render(source, *["x" * 10_000] * 100)
    assert len(prompt.text) == 100 * 10_004


def test_from_model_takes_the_texts_of_the_vocabulary():
    vocabulary = MiniVocabulary()
    template = ChatTemplate.from_model(
        SimpleNamespace(chat_template=chat_templates.CHATML), vocabulary
    )
    assert template is not None
    assert (template.bos_text, template.eos_text) == ("<s>", "</s>")
    assert template.stops == ("<|im_end|>",)
    assert ChatTemplate.from_model(SimpleNamespace(chat_template=None), vocabulary) is None


def test_a_turn_end_that_is_an_end_token_or_not_in_the_template_is_no_stop():
    vocabulary = MiniVocabulary(eog=frozenset((MiniVocabulary().special["<|im_end|>"],)))
    info = SimpleNamespace(chat_template=chat_templates.CHATML)
    assert ChatTemplate.from_model(info, vocabulary).stops == ()
    info = SimpleNamespace(chat_template=chat_templates.VICUNA)
    assert ChatTemplate.from_model(info, vocabulary).stops == ()


def test_the_package_holds_one_jinja_environment():
    """jinja2 is imported in one file (for types alone in a second), and one environment is made."""
    importers, makers = set(), []
    for path in [*ROOT.glob("nitrolib/**/*.py"), *ROOT.glob("adapters/**/*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [alias.name for alias in node.names]
                module = getattr(node, "module", None) or ""
                if any(name.split(".")[0] == "jinja2" for name in [module, *names]):
                    importers.add(path.relative_to(ROOT).as_posix())
                assert module != "flask" or "render_template_string" not in names, path
            elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("Environment"):
                makers.append(path.relative_to(ROOT).as_posix())
    assert importers == {"nitrolib/prompt/sandbox.py", "nitrolib/prompt/chat_template.py"}
    assert makers == ["nitrolib/prompt/sandbox.py"]


def test_jinja_is_loaded_when_a_template_is_made():
    code = (
        "import sys; from nitrolib.prompt import ChatTemplate; assert 'jinja2' not in sys.modules;"
        "ChatTemplate('x'); assert 'jinja2' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
