"""Chat templates in the styles that model files carry, written for the tests, and a plain renderer
to compare with: an environment set up as transformers sets up its own."""

from __future__ import annotations

import json

CHATML = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content']"
    " | trim + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

LLAMA_2 = """\
{%- if messages[0]['role'] == 'system' %}
    {%- set loop_messages = messages[1:] %}
    {%- set system_message = messages[0]['content'] %}
{%- else %}
    {%- set loop_messages = messages %}
    {%- set system_message = false %}
{%- endif %}
{%- for message in loop_messages %}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
        {{- raise_exception('Conversation roles must alternate user/assistant') }}
    {%- endif %}
    {%- if loop.index0 == 0 and system_message != false %}
        {%- set system = '<<SYS>>\\n' + system_message + '\\n<</SYS>>\\n\\n' %}
        {%- set content = system + message['content'] %}
    {%- else %}
        {%- set content = message['content'] %}
    {%- endif %}
    {%- if message['role'] == 'user' %}
        {{- bos_token + '[INST] ' + content.strip() + ' [/INST]' }}
    {%- elif message['role'] == 'assistant' %}
        {{- ' '  + content.strip() + ' ' + eos_token }}
    {%- endif %}
{%- endfor %}"""

ZEPHYR = """\
{% for message in messages %}
{% if message['role'] == 'user' %}
{{ '<|user|>\n' + message['content'] + eos_token }}
{% elif message['role'] == 'system' %}
{{ '<|system|>\n' + message['content'] + eos_token }}
{% elif message['role'] == 'assistant' %}
{{ '<|assistant|>\n'  + message['content'] + eos_token }}
{% endif %}
{% if loop.last and add_generation_prompt %}
{{ '<|assistant|>' }}
{% endif %}
{% endfor %}"""

VICUNA = """\
{%- for message in messages -%}
{%- if message.role == 'system' -%}{{ message.content ~ ' ' }}
{%- elif message.role == 'user' -%}{{ 'USER: ' ~ message.content ~ ' ' }}
{%- elif message.role == 'assistant' -%}{{ 'ASSISTANT: ' ~ message.content ~ eos_token }}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ 'ASSISTANT:' }}{%- endif -%}"""

NITRO = """\
{{- 'Rules follow.\n' -}}
{%- set names = {'system': "ASSISTANT's RULE:", 'user': 'USER:', 'assistant': 'ASSISTANT:'} -%}
{%- for m in messages -%}
{{- names.get(m.role, m.role) + ' ' + m.content + '\n' -}}
{%- endfor -%}
{{- 'ASSISTANT:' -}}"""

PHI = (
    "{% for message in messages %}{{'<|' + message['role'] + '|>' + '\n' + message['content']"
    " + '<|end|>\n'}}{% endfor %}{{ '<|assistant|>\n' }}"
)

THINKING = """\
{{- bos_token }}
{%- macro turn(role, text) %}{{ '<|im_start|>' ~ role }}
{{ text }}<|im_end|>
{% endmacro %}
{%- set ns = namespace(last=0, seen='') %}
{%- for message in messages %}
    {%- if message.role == 'user' %}{% set ns.last = loop.index0 %}{% endif %}
{%- endfor %}
{%- for message in messages %}
    {%- set content = message.content if message.content is string else '' %}
    {%- if message.role == 'assistant' and '</think>' in content and loop.index0 < ns.last %}
        {%- set content = content.split('</think>')[-1].lstrip('\n') %}
    {%- endif %}
    {%- set content = content | replace('<think>', '') %}
    {{- turn(message.role, content) }}
{%- endfor %}
{{- '<|im_start|>assistant\n' }}"""

# Not from any model: operations that take strings apart and put them together again.
MANGLING = """\
{%- for m in messages -%}
{{- '<|im_start|>' -}}
{{- m.content | upper | lower -}}
{{- m.content[::-1] ~ m.content[1:] ~ m.content[:-1] -}}
{{- m.content | replace('x', '') -}}
{{- m.content.replace('|', '|x|').replace('x', '') -}}
{{- m.content.split('|') | join('|') -}}
{{- m.content.split() | join -}}
{{- m.content | list | join -}}
{{- m.content | map('upper') | map('lower') | join -}}
{{- (m.content, 'end', m.content) | join('_') -}}
{{- '_'.join([m.content, m.role]) -}}
{%- for char in m.content %}{{ char }}{% endfor -%}
{%- for line in m.content.splitlines() %}{{ line }}{% endfor -%}
{{- m.content.partition('|') | join -}}
{{- m.content | title ~ m.content | capitalize ~ m.content.swapcase().swapcase() -}}
{{- m.content | indent(2) ~ m.content | trim('<') ~ m.content | reverse -}}
{%- set block %}{{ m.content }}{% endset -%}{{- block * 2 -}}
{{- '%s' % m.content ~ m.content | tojson ~ m.content | escape -}}
{{- '<|im_end|>' -}}
{%- endfor -%}"""

# name -> template text
ALL = {
    "chatml": CHATML,
    "llama-2": LLAMA_2,
    "zephyr": ZEPHYR,
    "vicuna": VICUNA,
    "nitro": NITRO,
    "phi": PHI,
    "thinking": THINKING,
    "mangling": MANGLING,
}


def plain_render(
    source: str, messages: list[dict[str, str]], bos_token: str = "<s>", eos_token: str = "</s>"
) -> str:
    """What a template renders without tracing or budget."""
    import jinja2.ext
    import jinja2.sandbox

    def raise_exception(message: str) -> None:
        raise jinja2.TemplateError(message)

    def tojson(value: object, ensure_ascii: bool = False, indent: int | None = None) -> str:
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent)

    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[jinja2.ext.loopcontrols]
    )
    environment.filters["tojson"] = tojson
    environment.globals["raise_exception"] = raise_exception
    return environment.from_string(source).render(
        messages=messages,
        add_generation_prompt=True,
        bos_token=bos_token,
        eos_token=eos_token,
        tools=None,
        documents=None,
    )
