"""Small templates that print and strip values, and what HF's Jinja2 makes of them."""

MESSAGES = [
    {"role": "user", "content": "\n\n  a\x1c\u00a0", "n": 3, "small": 1e-7, "list": ["it's", 'é "x"', 1.5, True, False, None, [], {}]},
    {"role": "tool", "content": "\ufeffb\ufeff\x85 \x1f", "call": {"name": "f", "ok": True, "n": None, "deep": {"a\n": [1, -2.5, 1e-300]}}},
    {"role": "assistant", "content": "xx-yxx", "odd": "\t\\\u200b\u2028\xa0\xad\x7f\x80\ue001🙂\U000e0001'"},
]
TEMPLATES = [
    # str.strip and its like, the trim filter
    "[{{ 'xxaxx'.strip('x') }}][{{ 'xyaxy'.lstrip('yx') }}][{{ 'ab'.rstrip('b') }}][{{ ' a '.strip(none) }}][{{ 'a'.strip('') }}]",
    "[{{ '\\n\\n  a'.lstrip('\\n') }}][{{ 'r</think>\\n\\n\\tx'.split('</think>')[-1].lstrip('\\n') }}]",
    "{% for m in messages %}[{{ m.content.strip() }}][{{ m.content.lstrip() }}][{{ m.content.rstrip() }}]{% endfor %}",
    "{% for m in messages %}[{{ m.content | trim }}][{{ m.content | trim('x') }}][{{ m.content | trim(chars='xy-') }}]{% endfor %}",
    "[{{ ('🙂a🙂🙃').strip('🙂') }}][{{ 12 | trim }}][{{ none | trim }}][{{ nothing | trim }}]",
    "{{ 'a'.strip(1) }}",
    # values printed as Python prints them
    "{{ true }} {{ false }} {{ none }} [{{ nothing }}] {{ 1.0 }} {{ 3 / 2 }} {{ 4 / 2 }} {{ 2 ** -1 }} {{ 0.1 + 0.2 }} {{ 1 + true }}",
    "{{ messages[0] }}",
    "{{ messages[1] }} {{ messages[1].call }}",
    "{{ messages[2] }}",
    "{{ ['a', 1, true, none, (1, 'b'), nothing] }} {{ {} }} {{ [] }} {{ {'a': {'b': ['']}} }}",
    "{{ messages[0].small }} {{ 0.0001 }} {{ 0.00001234 }} {{ 123456789012345.5 }} {{ 1.5 * 10.0 ** 16 }} {{ -0.0 }} {{ 10.0 ** 100 }}",
    "{{ 'a' ~ 1 ~ true ~ none ~ 1.5 ~ ['x'] ~ nothing }} {{ [1, none, true, 'x', 2.0] | join('|') }} {{ ['a', ['b']] | join }}",
    "{{ ['a', true] | string }}{{ true | string }}{{ none | string }}{{ {'k': none} | string }}{{ 1.0 | string }}",
    "{% set x %}{{ none }}{{ [true] }}{% endset %}{{ x }}{% macro f(a) %}{{ a }}{% endmacro %}{{ f(none) }}{{ f({'a': true}) }}",
    "{% for m in messages %}{% if m.call %}{{ m.call }}{% endif %}{{ m.missing }}{{ m.get('missing') }}{% endfor %}{# c #}",
    "{{ [0.1, 1.5, messages[0].small, 0.00001] | tojson }} {{ messages | tojson }} {{ {'a': 1.5, 'b': [none, true]} | tojson(indent=2) }}",
    # what Python does not add
    "{{ 'a' + 'b' }} {{ [1] + [2] }} {{ (1, 2) + (3, 4) }} {{ 1 + 2 }} {{ 1 + 2.5 }} {{ 'a' + 'b' + 'c' }}",
    "{{ 7 % 3 }} {{ -7 % 3 }} {{ 7 % -3 }} {{ -7 % -3 }} {{ 6 % 3 }} {{ -7.5 % 2 }} {{ 5 % true }}",
    "{{ 5 % 0 }}",
    "{{ 'a' + ['b'] }}",
    "{{ 'a' + 1 }}",
    "{{ 'a' + true }}",
    "{{ ['b'] + 'a' }}",
    "{{ 'a' + none }}",
    "{{ 'a' + nothing }}",
    # ends of lines
    "a\r\n{% if true %}\r\n  b\r\n{% endif %}\r\n{{ 'x\r\ny' }}\rc\r\n",
]


def rendered_values(tokenizer):
    """The text of each template, or None where Jinja2 raises."""
    texts = []
    for template in TEMPLATES:
        try:
            texts.append(tokenizer.apply_chat_template(MESSAGES, chat_template=template, tokenize=False))
        except Exception:
            texts.append(None)
    return {"messages": MESSAGES, "cases": [{"template": t, "text": text} for t, text in zip(TEMPLATES, texts, strict=True)]}
