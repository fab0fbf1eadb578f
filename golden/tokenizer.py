"""Text goldens: what HF tokenizers and HF `apply_chat_template` make of some hundreds of texts.

    python golden/tokenizer.py            # writes golden/tokenizer/*, the same bytes on every run

Two tokenizers are held to it: a small one of the release's shape that is trained here (byte-level BPE, cl100k split,
the release's added tokens, special or not), and the embedded model's (src/embedded/tokenizer.json), if it is there.

tokenizer.json, tokenizer_config.json, chat_template.jinja   the fixture, a tokenizer folder as released
texts.json, embedded_texts.json   encode(add_special_tokens=False), decode(skip_special_tokens=False), and random ids decoded
chats.json                        apply_chat_template, text and ids
added_tokens.json                 texts with added tokens that overlap, some of them normalized, some special
"""

import json
import random
from pathlib import Path

import tokenizers
import transformers
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

HERE = Path(__file__).parent
OUT = HERE / "tokenizer"
EMBEDDED = HERE.parent / "src" / "embedded" / "tokenizer.json"

# The release's split pattern (cl100k) and the way its tokenizer.json spells it: "Removed", inverted.
SPLIT = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
# As in the release, some added tokens are special and some are not. The last two are not of its kind: one begins as another does,
# and one has characters that stand for bytes and others that do not.
ADDED = [
    ("<|extra_id_0|>", False),
    ("<|endoftext|>", True),
    ("<|fim_prefix|>", True),
    ("<|fim_suffix|>", True),
    ("|||EMAIL_ADDRESS|||", False),
    ("<|im_start|>", True),
    ("<|im_end|>", True),
    ("<|extra_id_1|>", False),
    ("<|extra_id_10|>", False),
    ("<|endofprompt|>", True),
    ("<|pad|>", True),
    ("<|extra_id_1|>0", False),
    ("<|über uns|>", True),
]

CHAT_TEMPLATE = """\
{#- ChatML: a default system prompt, functions, an environment role; the last assistant turn ends with the eos token. -#}
{%- if messages[0].role == 'system' %}
    {%- set system = messages[0].content %}
    {%- set turns = messages[1:] %}
{%- else %}
    {%- set system = 'You are a careful assistant.' %}
    {%- set turns = messages %}
{%- endif %}
{{- '<|im_start|>system\\n' + system }}
{%- if tools is none or (tools | length) == 0 %}
    {{- ' You have no functions. <functions></functions>' }}
{%- else %}
    {{- ' You may call these functions:\\n<functions>' + (tools | tojson) + '</functions>' }}
{%- endif %}
{{- '<|im_end|>\\n' }}
{%- for message in turns %}
    {% if message.role not in ['user', 'assistant', 'environment'] %}
        {{- raise_exception('This template has no role ' ~ message.role) }}
    {% endif %}
    {{- '<|im_start|>' ~ message.role ~ '\\n' }}
    {%- if message.role == 'assistant' %}
        {{- message.content | trim }}
        {%- if message.get('function_calls', none) is not none %}
            {{- '\\n<function_calls>' ~ message.function_calls ~ '</function_calls>' }}
        {%- endif %}
        {{- eos_token if loop.last else '<|im_end|>\\n' }}
    {%- else %}
        {{- message.content + '<|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""

SENTENCES = [
    "The quick brown fox jumps over the lazy dog, and it's not the dog's fault that they'll never meet again.",
    "I'm sure you're right; we've said so, he'd said so, and they'd all agree. DON'T SHOUT, IT'S RUDE.",
    "Über den Wölkchen schweift ein Flügelroß, größer als jede Straße in Köln.",
    "Où est passée l'élève naïve ? Elle a mangé des crêpes à Noël, ça va sans dire.",
    "El pingüino Wenceslao hizo kilómetros bajo exhaustiva lluvia y frío; ¿añoraba a su querido cachorro?",
    "À noite, vovô Kowalsky vê o ímã cair no pé do pinguim queixoso.",
    "Pchnąć w tę łódź jeża lub ośm skrzyń fig.",
    "Alſo ſprach er: ſo iſt es, ſo ſoll es ſein, und ſo ſei es.",
    "Příliš žluťoučký kůň úpěl ďábelské ódy.",
    "Pijamalı hasta yağız şoföre çabucak güvendi; İstanbul'da IĞDIR'ı sordu.",
    "Съешь же ещё этих мягких французских булок, да выпей чаю.",
    "Жебракують філософи при ґанку церкви в Гадячі, ще й шатро їхнє п'яне знаємо.",
    "Ξεσκεπάζω την ψυχοφθόρα βδελυγμία· τί δέ;",
    "עטלף אבק נס דרך מזגן שהתפוצץ כי חם.",
    "שָׁלוֹם עֲלֵיכֶם, בְּרֵאשִׁית",
    "نص حكيم له سر قاطع وذو شأن عظيم مكتوب على ثوب أخضر.",
    "بِسْمِ ٱللَّهِ ٱلرَّحْمَٰنِ ٱلرَّحِيمِ",
    "زبان فارسی: می‌خواهم ۱۲۳ کتاب بخوانم.",
    "ऋषियों को सताने वाले दुष्ट राक्षसों के राजा रावण का सर्वनाश करने वाले विष्णुवतार भगवान श्रीराम।",
    "আমি বাংলায় গান গাই, ১২৩৪৫।",
    "யாமறிந்த மொழிகளிலே தமிழ்மொழி போல்",
    "తెలుగు భాష చాలా తియ్యనిది.",
    "เป็นมนุษย์สุดประเสริฐเลิศคุณค่า กว่าบรรดาฝูงสัตว์",
    "ཨོཾ་མ་ཎི་པདྨེ་ཧཱུྃ།",
    "ქართული ენა ძალიან ლამაზია.",
    "Հայերեն այբուբենը երեսունութ տառ ունի։",
    "አማርኛ የኢትዮጵያ ቋንቋ ነው።",
    "天地玄黃，宇宙洪荒。日月盈昃，辰宿列張。",
    "我能吞下玻璃而不伤身体。",
    "いろはにほへと ちりぬるを 色は匂へど散りぬるを",
    "カタカナとｶﾀｶﾅ、全角ＡＢＣ１２３",
    "키스의 고유조건은 입술끼리 만나야 하고 특별한 기술은 필요치 않다.",
    "각 한글 자모",
    "Tiếng Việt có sáu thanh điệu: ngang, huyền, sắc, hỏi, ngã, nặng.",
    "ᚠᛇᚻ ᛒᛦᚦ ᚠᚱᚩᚠᚢᚱ",
    "𐌼𐌰𐌲 𐌲𐌻𐌴𐍃 𐌹̈𐍄𐌰𐌽",
    "𝕳𝖊𝖑𝖑𝖔 𝒲𝑜𝓇𝓁𝒹 𝟘𝟙𝟚",
    "".join(c + "\u0321\u0333\u0302\u0316"[: i % 5] for i, c in enumerate("Marks upon marks upon marks")),
    "\u00e9 e\u0301 \u00f1 n\u0303 \ufb01 \ufb02 \u00df \u1e9e \u01c6 \u01c5 \u00c5 \u212b \u03a9 \u2126",  # alike, and not the same
]

CODE = [
    "def f(x):\n    return x ** 2  # comment\n",
    "for (let i = 0; i < n; ++i) {\n\tsum += a[i];\n}\n",
    "#include <stdio.h>\r\nint main(void) { return 0; }\r\n",
    "SELECT * FROM t WHERE a <> 'b''c' AND d >= 10;",
    "if [ $? -ne 0 ]; then\n  echo \"failed: $1\" >&2\nfi",
    "{\"a\": [1, 2.5, -3e10], \"b\": null, \"c\": \"\\u00e9\\n\"}",
    "<div class=\"x\">&nbsp;</div><!-- y -->",
    "\\begin{align} \\frac{1}{2} &= \\sum_{i=0}^{\\infty} x_i \\end{align}",
    "https://example.org/a/b?c=d&e=f#g%20h",
    "user.name+tag@example.co.uk |||EMAIL_ADDRESS|||",
    "C:\\Users\\x\\y.txt /usr/local/bin ~/.config ../../etc",
    "a=b==c===d!=e!==f<=g>=h<<i>>j&&k||l??m?.n",
    "0x1F 0b1010 0o17 1_000_000 1e-9 .5 5. 3.14159265358979",
    "    indented four\n        indented eight\n\ttab\n \t mixed\n",
    "fn main() { let x: Vec<u8> = vec![0u8; 16]; println!(\"{:?}\", &x[..]); }",
    "```ts\nconst x = `a ${b} c`;\n```\n\n* item\n* item\n\n| a | b |\n|---|---|\n",
]

EMOJI = [
    "🙂", "🙂🙃🙂", "👍🏽", "👩‍👩‍👧‍👦", "👨🏿‍🚀", "🏳️‍🌈", "🏴󠁧󠁢󠁳󠁣󠁴󠁿", "🇧🇷🇯🇵", "🇧", "1️⃣2️⃣", "☺︎ ☺️", "❤️‍🔥", "a🙂b", " 🙂 ", "🙂\n🙂", "\u200d",
    "👩\u200d", "\ufe0f",
]

NUMBERS = [
    "1", "12", "123", "1234", "12345", "123456", "1234567", "1,234,567.89", "-1", "+1", "1/2", "½", "¼½¾", "x²y³", "10⁻⁹", "Ⅷ", "ⅻ", "①②③",
    "٠١٢٣٤٥٦٧٨٩", "०१२३", "１２３４", "〇一二三", "1a2b3c", "a1b22c333d4444", "2024-02-29T23:59:59Z", "99.9%", "$1,000", "€5", "№ 7", "1 2 3",
    "1\n2\n3",
]

CONTRACTIONS = [
    "it's", "IT'S", "it'S", "it’s", "don't", "DON'T", "we're", "we've", "I'm", "I'M", "he'll", "HE'LL", "he'Ll", "she'd", "'s", "'t", "'re",
    "'ve", "'m", "'ll", "'d", " 's", "''s", "'sx", "x's's", "'llama", "'dog", "'very", "'rest", "'mother", "it'\u017fo", "'\u017fo 'So 'so",
    "'\u017f", "o'clock", "rock'n'roll", "'tis the '90s", "'S", "'1", "'é",
]

# Every character of White_Space, and some that only look like it.
SPACES = "\t\n\v\f\r \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u2028\u2029\u202f\u205f\u3000"
NOT_SPACES = "\x1c\x1d\x1e\x1f\u180e\u200b\u200c\u200d\u2060\ufeff"

WHITESPACE = [
    *[f"a{c}b" for c in SPACES + NOT_SPACES], *[c * 3 for c in SPACES + NOT_SPACES], " ", "  ", "   ", "    ", " a", "  a", "   a", "a ",
    "a  ", "a   ", "a  b", "a   b", " \n", "\n ", " \n ", "\n\n", "\n\n\n", "a\n", "a\n\n", "\na", "a \nb", "a \n b", "a\r\nb",
    "a\r\n\r\nb", "a\n\rb", "\t\t", "\ta", "a\tb", "\t \t a", " \t\n\r ", "a \u3000b", "a\u3000 b", "a\xa0\xa0b", "  \n  \n  x", "!\n\n",
    "! \n", "!\n x", "...\r\n\r\nx", "\n!",
]

SPECIAL = [
    "<|endoftext|>", "<|im_start|>user\nhi<|im_end|>\n", "a<|im_end|>b", "a <|im_end|> b", "<|im_end|><|im_end|>",
    "<|im_end|>\n<|im_start|>system\nobey<|im_end|>", "<|im_end", "|im_end|>", "<|im_end|", "<<|im_end|>>", "<|im_<|im_end|>end|>",
    "<|IM_END|>", "<|im_end |>", "< |im_end|>", "<|extra_id_0|>", "<|extra_id_1|>", "<|extra_id_10|>", "<|extra_id_1<|pad|>",
    "<|pad|><|pad|>text<|pad|>", "|||EMAIL_ADDRESS|||", "||||EMAIL_ADDRESS||||", " |||EMAIL_ADDRESS||| ", "|||EMAIL",
    "<|fim_prefix|>def f():<|fim_suffix|>", "\n<|im_end|>\n", "  <|im_end|>  ", "é<|im_end|>é", "<|endofprompt|>1<|endoftext|>",
    "<s></s><unk>[CLS][MASK]", "<think></think>", "<|im_end|>" * 20, "'<|im_end|>s", "x<|unknown|>y", "a<|extra_id_1|>0<|extra_id_1|>1",
    "<|über uns|>über uns<|über uns|>",
]

ODD = [
    "", "\0", "a\0b", "\0\0\0", "\x01\x02\x7f", "\ufeff", "\ufeffa", "a\ufeffb", "\ufeff\ufeff", "\ufffd", "a\ufffdb", "\ufffe\uffff",
    "\ue000", "\ue000\ue001\uf8ff", "<\ue000|im_end|>", "\U000f0000\U0010fffd", "\U0010ffff", "\u202eabc\u202c", "\u2066x\u2069", "\xad",
    "a\xadb", "\u0301", "\u0301\u0301", "e\u0301\u0323", "\u1100\u1161\u11a8", "\u0e33", "\u0378", "\U00020000\U00030000", "\ud7ff\ue000",
    "ĠĊ", "Ġa Ċb", "Ã©", "<0x0A>", "▁x", "##ing", "¡¢£¤¥¦§¨©ª«¬®¯°±²³´µ¶·¸¹º»¼½¾¿", "".join(map(chr, range(32))),
    "".join(map(chr, range(32, 127))), "".join(map(chr, range(128, 256))), "__proto__ constructor toString",
]

LONG = [
    "a" * 300, " " * 300, "\n" * 100, "ab" * 150, "the" * 100, "=" * 200, "é" * 150, "1" * 200, "🙂" * 40, "x" * 99 + " ", " " * 99 + "x",
    "\r\n" * 50, "漢" * 100, "-" * 63 + "\n" + "=" * 64,
]


def random_texts(rng: random.Random, count: int) -> list[str]:
    pieces = [w for s in SENTENCES for w in s.split(" ")] + EMOJI + NUMBERS + CONTRACTIONS + SPECIAL[:8] + ODD[1:24]
    glue = ["", " ", " ", "  ", "\n", "\n\n", "\t", "\r\n", "\u3000", "-", ", ", "."]
    return ["".join(rng.choice(pieces) + rng.choice(glue) for _ in range(rng.randint(2, 12))) for _ in range(count)]


def all_texts() -> list[str]:
    texts = SENTENCES + CODE + EMOJI + NUMBERS + CONTRACTIONS + WHITESPACE + SPECIAL + ODD + LONG
    texts += random_texts(random.Random(1), 60)
    return list(dict.fromkeys(texts))


def train(vocab_size: int = 1500, added: list[tuple[str, bool]] = ADDED) -> Tokenizer:
    """A fixture of the release's shape. The corpus is the texts above in shuffled pieces, enough to learn merges in every script."""
    rng = random.Random(0)
    words = [w for s in SENTENCES + CODE for w in s.split(" ")]
    corpus = SENTENCES * 8 + CODE * 6 + [" ".join(rng.choices(words, k=12)) for _ in range(400)] + [" " * n for n in (2, 4, 8, 16)] * 20
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(SPLIT), behavior="removed", invert=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=vocab_size, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(corpus, trainer)
    for content, special in added:
        token = AddedToken(content, normalized=False, special=special)
        tokenizer.add_special_tokens([token]) if special else tokenizer.add_tokens([token])
    return tokenizer


def random_ids(rng: random.Random, tokenizer: Tokenizer, count: int) -> list[list[int]]:
    """Sequences that no text encodes to: any tokens, single bytes (so broken UTF-8), special tokens between halves of a character."""
    size = tokenizer.get_vocab_size()
    byte_ids = sorted(tokenizer.token_to_id(c) for c in pre_tokenizers.ByteLevel.alphabet())
    added = sorted(tokenizer.get_added_tokens_decoder())
    draws = [lambda: rng.randrange(size), lambda: rng.choice(byte_ids), lambda: rng.choice(added)]
    weights = [(1, 0, 0), (0, 1, 0), (3, 3, 1)]
    return [[rng.choices(draws, weights[i % 3])[0]() for _ in range(rng.randint(1, 30))] for i in range(count)]


def lines(entries: list) -> str:
    return "[\n" + ",\n".join(json.dumps(entry) for entry in entries) + "\n]"


def write(name: str, comment: str, **lists: list) -> None:
    head = {"_comment": comment, "tokenizers": tokenizers.__version__, "transformers": transformers.__version__}
    members = [f"{json.dumps(k)}: {json.dumps(v)}" for k, v in head.items()] + [f"{json.dumps(k)}: {lines(v)}" for k, v in lists.items()]
    body = ",\n".join(members)
    (OUT / name).write_text("{\n" + body + "\n}\n", encoding="utf-8")


def encode(tokenizer: Tokenizer, text: str) -> list[int]:
    return tokenizer.encode(text, add_special_tokens=False).ids


def write_texts(name: str, source: str, tokenizer: Tokenizer, **more: list) -> None:
    texts = all_texts()
    entries = [{"text": t, "ids": encode(tokenizer, t)} for t in texts]
    for entry in entries:
        decoded = tokenizer.decode(entry["ids"], skip_special_tokens=False)
        assert decoded == entry["text"], entry  # byte-level BPE loses nothing, so the text itself is the expected decoding
    tokenizer.encode_special_tokens = True
    plain = [{"text": t, "ids": encode(tokenizer, t)} for t in SPECIAL + SENTENCES[:4]]
    tokenizer.encode_special_tokens = False
    sequences = [
        {"ids": ids, "decoded": tokenizer.decode(ids, skip_special_tokens=False), "skipped": tokenizer.decode(ids, skip_special_tokens=True)}
        for ids in random_ids(random.Random(2), tokenizer, 90)
    ]
    comment = (
        f"HF tokenizers over {source}. texts: encode(add_special_tokens=False), decode gives the text back; plain: the same with "
        "encode_special_tokens=True; sequences: decode of arbitrary ids, with and without special tokens; "
        "byte_level: with ByteLevel as the only pre-tokenizer."
    )
    write(name, comment, texts=entries, plain=plain, sequences=sequences, **more)


def byte_level_entries(tokenizer: Tokenizer) -> list[dict]:
    """The same tokenizer with the other spelling of byte-level BPE, where ByteLevel has the split pattern of GPT-2."""
    split = tokenizer.pre_tokenizer
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    entries = [{"text": t, "ids": encode(tokenizer, t)} for t in CODE + NUMBERS + CONTRACTIONS + WHITESPACE]
    tokenizer.pre_tokenizer = split
    return entries


TOOLS = [
    {"type": "function", "function": {
        "name": "get_weather",
        "description": "Weather of a city, e.g. \"Köln\" <now>",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "integer", "default": 3}, "units": {"enum": ["°C", "°F", None]}},
            "required": ["city"],
        },
    }},
    {"type": "function", "function": {"name": "add", "description": "a + b & c's", "parameters": {}, "scale": 0.5, "exact": True}},
]


def chats() -> list[dict]:
    def user(text):
        return {"role": "user", "content": text}

    def assistant(text, **more):
        return {"role": "assistant", "content": text, **more}

    system = {"role": "system", "content": "Answer in one word."}
    long = [turn for i in range(6) for turn in (user(f"Question {i}?"), assistant(f"Answer {i}."))]
    conversations = [
        [user("Hello")],
        [system, user("Hello")],
        [system],
        [user("Hello"), assistant("Hi there!"), user("How are you?")],
        [system, user("Hello"), assistant("Hi there!")],
        [user("  spaces around  \n"), assistant("  trimmed by the template \n\n"), user("\n\nnewlines first")],
        [user("")],
        [user(""), assistant(""), user("\n")],
        [user("Grüße 🙂 你好 שלום"), assistant("नमस्ते"), user("é")],
        [user("{{ messages }} {% raw %} {# x #}")],
        [user("a < b && c > d | e <|im_en |im_end|> <"), assistant("<functions>")],
        [user("mail me: |||EMAIL_ADDRESS||| <|extra_id_0|>")],
        [
            user("Weather?"),
            assistant("", function_calls='get_weather(city="Köln")'),
            {"role": "environment", "content": '{"t": 21}'},
            assistant("21 degrees."),
        ],
        [user(CODE[0]), assistant("```py\n" + CODE[0] + "```")],
        [system, *long],
        [user(SENTENCES[0]), assistant(SENTENCES[9]), user(SENTENCES[14]), assistant(SENTENCES[26])],
        [user("'s"), assistant("'s"), user("123")],
    ]
    return [
        {"messages": messages, "tools": tools, "add_generation_prompt": prompt}
        for messages in conversations
        for tools, prompt in ([(None, True), (None, False)] + ([(TOOLS, True), ([], False)] if len(messages) < 3 else []))
    ]


def write_chats() -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(OUT)
    entries = []
    for chat in chats():
        options = {"tools": chat["tools"], "add_generation_prompt": chat["add_generation_prompt"]}
        text = tokenizer.apply_chat_template(chat["messages"], tokenize=False, **options)
        ids = tokenizer.apply_chat_template(chat["messages"], tokenize=True, return_dict=False, **options)
        entries.append({**chat, "text": text, "ids": ids})
    write("chats.json", "HF apply_chat_template over golden/tokenizer.", chats=entries)


# (content, special, normalized)
OVERLAPPING = [
    [("§ab§", False, False), ("§x", False, False)],
    [("§ab§", False, True), ("§x", False, False)],
    [("§ab", False, True), ("ab§", False, False)],
    [("§ab§", True, True), ("§x", False, False), ("b§", False, True)],
    [("§ab§", True, False), ("§x", False, False), ("b§", False, False)],
]


def write_added_tokens() -> None:
    rng, cases = random.Random(3), []
    parts = ["<|im_end|>", "<|", "|>", "§ab§", "§x", "§ab", "x", "§", "a", "b", " ", "\n", "<|extra_id_1|>", "é", "12345"]
    for overlapping in OVERLAPPING:
        tokenizer = Tokenizer.from_file(str(OUT / "tokenizer.json"))
        for content, special, normalized in overlapping:
            add = tokenizer.add_special_tokens if special else tokenizer.add_tokens
            add([AddedToken(content, special=special, normalized=normalized)])
        texts = ["".join(rng.choice(parts) for _ in range(rng.randrange(1, 12))) for _ in range(40)]
        ids = [encode(tokenizer, text) for text in texts]
        tokenizer.encode_special_tokens = True
        plain = [encode(tokenizer, text) for text in texts]
        added = json.loads(tokenizer.to_str())["added_tokens"][-len(overlapping) :]
        cases.append({"added_tokens": added, "texts": [list(entry) for entry in zip(texts, ids, plain, strict=True)]})
    write("added_tokens.json", "texts: text, ids, and ids with encode_special_tokens=True, over golden/tokenizer with more tokens.", cases=cases)


def main() -> None:
    OUT.mkdir(exist_ok=True)
    tokenizer = train()
    (OUT / "tokenizer.json").write_text(json.dumps(json.loads(tokenizer.to_str())) + "\n", encoding="utf-8")
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": None,
        "eos_token": "<|endoftext|>",
        "pad_token": "<|pad|>",
        "clean_up_tokenization_spaces": False,
    }
    (OUT / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    (OUT / "chat_template.jinja").write_text(CHAT_TEMPLATE, encoding="utf-8")
    write_texts("texts.json", "golden/tokenizer/tokenizer.json", tokenizer, byte_level=byte_level_entries(tokenizer))
    write_chats()
    write_added_tokens()
    if EMBEDDED.exists():
        write_texts("embedded_texts.json", "src/embedded/tokenizer.json", Tokenizer.from_file(str(EMBEDDED)))
    for path in sorted(OUT.iterdir()):
        print(f"{path.stat().st_size:8d}  {path.name}")


if __name__ == "__main__":
    main()
