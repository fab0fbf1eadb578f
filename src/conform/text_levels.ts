import { packageFile } from '../package_files.ts';
import { kindOf } from '../text_file.ts';
import { jsonGolden } from './fixtures.ts';
import { type Case, failed, type Judgement, type Level, passed } from './protocol.ts';

const FOLDER = packageFile('golden/tokenizer');
/** Texts in one request. */
const AT_ONCE = 50;

interface Texts {
  readonly texts: readonly { readonly text: string; readonly ids: readonly number[] }[];
  readonly sequences: readonly { readonly ids: readonly number[]; readonly decoded: string }[];
}

interface Chats {
  readonly chats: readonly {
    readonly messages: readonly { readonly role: string; readonly content: string }[];
    readonly tools: readonly unknown[] | null;
    readonly add_generation_prompt: boolean;
    readonly text: string;
  }[];
}

/** Texts to ids and ids to texts, as HF tokenizers does. */
export const tokenizerLevel: Level = {
  measure: null,
  writes: false,
  async cases() {
    const { texts, sequences } = await jsonGolden<Texts>('tokenizer/texts.json');
    const encoded = batches(texts).map(([name, batch]): Case => {
      const request = { level: 'tokenizer', case: `encode ${name}`, model: FOLDER, texts: batch.map(({ text }) => text) } as const;
      return {
        request,
        judge: async ({ ids }) =>
          each(
            ids,
            batch.map((entry) => entry.ids),
            request.texts,
          ),
      };
    });
    const pairs = [...texts.map(({ text, ids }) => ({ ids, decoded: text })), ...sequences];
    const decoded = batches(pairs).map(([name, batch]): Case => {
      const request = { level: 'tokenizer', case: `decode ${name}`, model: FOLDER, ids: batch.map(({ ids }) => ids) } as const;
      return {
        request,
        judge: async (fields) =>
          each(
            fields['texts'],
            batch.map((entry) => entry.decoded),
            request.ids,
          ),
      };
    });
    return [...encoded, ...decoded];
  },
};

/** Chats to prompts, as HF apply_chat_template does. */
export const templateLevel: Level = {
  measure: null,
  writes: false,
  async cases() {
    const { chats } = await jsonGolden<Chats>('tokenizer/chats.json');
    return chats.map(({ messages, tools, add_generation_prompt, text: expected }, i) => ({
      request: { level: 'template', case: `chat ${i + 1}`, model: FOLDER, messages, tools, add_generation_prompt },
      judge: async ({ text }) => (text === expected ? passed() : failed(...parting(expected, text))),
    }));
  },
};

function batches<T>(all: readonly T[]): [name: string, batch: readonly T[]][] {
  return Array.from({ length: Math.ceil(all.length / AT_ONCE) }, (_, i) => {
    const batch = all.slice(i * AT_ONCE, (i + 1) * AT_ONCE);
    return [`${i * AT_ONCE + 1} to ${i * AT_ONCE + batch.length}`, batch];
  });
}

/** Every element of an answer is the one expected for its input. */
function each(answer: unknown, expected: readonly unknown[], inputs: readonly unknown[]): Judgement {
  const found = Array.isArray(answer) ? (answer as unknown[]) : [];
  const wrong = expected.findIndex((value, i) => JSON.stringify(found[i]) !== JSON.stringify(value));
  return wrong < 0 ? passed() : failed(`${kindOf(expected[wrong])} for ${kindOf(inputs[wrong])}`, kindOf(found[wrong]));
}

/** Where two texts part, and how each goes on. */
function parting(expected: string, found: unknown): [string, string] {
  if (typeof found !== 'string') return ['a text', kindOf(found)];
  let at = 0;
  while (at < expected.length && expected[at] === found[at]) at++;
  const from = (text: string) => `${JSON.stringify(text.slice(at, at + 40))} at character ${at}`;
  return [from(expected), from(found)];
}
