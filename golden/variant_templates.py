"""Chat templates that behave as those of the released variants; the wording is ours.

What they imitate, by the notes of the people who trained the models (open-instruct, docs/olmo3.md) and by renderers in other runtimes:
ChatML; a system turn where the chat has none; functions in the system turn, from the chat's `tools` or from the turn's own field; turns
of the assistant that have calls and no content, spelled as text (`function_calls`) or as a list (`tool_calls`); `tool` as another name of
`environment`; `<|endoftext|>` after the last turn if it is the assistant's. Think variants add `<think>` to the prompt of the answer;
those of OLMo 3 also take the reasoning out of earlier turns, those after it do not.
"""

_TURNS = """\
{%- for message in messages -%}
    {%- if message['role'] == 'system' -%}
        {{- '<|im_start|>system\\n' + message['content'] -}}
        {%- if tools is not none -%}
            {{- '<functions>' + (tools | tojson) + '</functions>' -}}
        {%- elif message.get('functions', none) is not none -%}
            {{- ' <functions>' + message['functions'] + '</functions>' -}}
        {%- endif -%}
        {{- '<|im_end|>\\n' -}}
    {%- elif message['role'] == 'assistant' -%}
        {{- '<|im_start|>assistant\\n' -}}
        {%- if message.get('content', none) is not none -%}
            {{- message['content'] -}}
        {%- endif -%}
        {%- if message.get('function_calls', none) is not none -%}
            {{- '<function_calls>' + message['function_calls'] + '</function_calls>' -}}
        {%- elif message.get('tool_calls', none) is not none -%}
            {{- '<function_calls>' -}}
            {%- for call in message['tool_calls'] -%}
                {%- if call is mapping and call.get('function', none) is not none -%}
                    {%- set call_of = namespace(arguments=[]) -%}
                    {%- for name, value in call['function']['arguments'].items() -%}
                        {%- set call_of.arguments = call_of.arguments + [name ~ '=' ~ (value | tojson)] -%}
                    {%- endfor -%}
                    {{- call['function']['name'] + '(' + (call_of.arguments | join(', ')) + ')' -}}
                    {{- '\\n' if not loop.last else '' -}}
                {%- else -%}
                    {{- call -}}
                {%- endif -%}
            {%- endfor -%}
            {{- '</function_calls>' -}}
        {%- endif -%}
        {{- eos_token if loop.last else '<|im_end|>\\n' -}}
    {%- elif message['role'] in ['environment', 'tool'] -%}
        {{- '<|im_start|>environment\\n' + message['content'] + '<|im_end|>\\n' -}}
    {%- elif message['role'] == 'user' -%}
        {{- '<|im_start|>user\\n' + message['content'] + '<|im_end|>\\n' -}}
    {%- endif -%}
    {%- if loop.last and add_generation_prompt -%}
        {{- '<|im_start|>assistant\\nPROMPT' -}}
    {%- endif -%}
{%- endfor -%}
"""

_SYSTEM = """\
{%- set own_system = messages | selectattr('role', 'equalto', 'system') | list -%}
{%- if own_system | length == 0 -%}
    {{- '<|im_start|>system\\nIDENTITY ' -}}
    {%- if tools is none or (tools | length) == 0 -%}
        {{- 'No functions are available. <functions></functions>' -}}
    {%- else -%}
        {{- 'Call functions from the list within <function_calls></function_calls>.<functions>' + (tools | tojson) + '</functions>' -}}
    {%- endif -%}
    {{- '<|im_end|>\\n' -}}
{%- endif -%}
"""


def template(identity: str, prompt: str = "") -> str:
    """The template of a variant that introduces itself as `identity` and begins an answer with `prompt`."""
    return (_SYSTEM + _TURNS).replace("IDENTITY", identity).replace("PROMPT", prompt)


INSTRUCT = template("You are a fixture that answers questions.")
THINK = template("You are a fixture that thinks, then answers.", "<think>")
# The template for chats with functions, where a release has several by name.
TOOL_USE = template("You are a fixture that calls functions.")
# As the Think variants of OLMo 3: an earlier turn keeps what comes after its reasoning, and the system turn denies functions.
THINKER = """\
{% for message in messages %}
{% if message['role'] == 'assistant' %}
{% set content = message.get('content', none) %}
{% if content is not none %}
{% set content = content | string %}
{% if not loop.last and '<think>' in content and '</think>' in content %}
{% set content = content.split('</think>')[-1].lstrip('\\n') %}
{% endif %}
{% else %}
{% set content = '' %}
{% endif %}
{{ '<|im_start|>assistant\\n' + content }}
{%- if message.get('function_calls', none) is not none %}
{{ '<function_calls>' + message['function_calls'] + '</function_calls>' }}
{%- endif %}
{{ eos_token if loop.last else '<|im_end|>\\n' }}
{%- elif message['role'] == 'system' %}
{{ '<|im_start|>system\\n' + message['content'] + ' No functions are available. <functions></functions><|im_end|>\\n' }}
{%- else %}
{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}
{%- endif %}
{% if loop.last and add_generation_prompt %}
{{ '<|im_start|>assistant\\n<think>' }}
{%- endif %}
{% endfor %}
"""
