import { readFileSync } from 'node:fs';
import { cp, mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { type Chat, type ChatMessage, type ChatTemplate, encodeChat, readChatTemplate, renderChat } from '../src/chat_template.ts';
import { readGenerationConfig } from '../src/generation_config.ts';
import { loadModel, readConfig } from '../src/load.ts';
import { startsThinking } from '../src/thinking.ts';
import { Tokenizer } from '../src/tokenizer.ts';
import { verify } from '../src/verify.ts';
import { logitsOf, readGolden, repository, temporaryFolder } from './support/models.ts';

/** Text and ids without and with the beginning of an answer. */
type Rendered = readonly [without: [string, number[]], withPrompt: [string, number[]]];
interface Conversation {
  readonly messages: ChatMessage[];
  readonly tools: unknown[] | null;
}
interface GoldenChats {
  readonly chats: Conversation[];
  readonly hostile: Conversation[];
  readonly expected: Readonly<Record<string, { chats: Rendered[]; hostile: Rendered[] }>>;
}

const VARIANTS = ['base', 'instruct_sft', 'instruct_dpo', 'think_sft'] as const;
const golden = JSON.parse(readFileSync(repository('golden/variants/chats.json'), 'utf8')) as GoldenChats;
const folderOf = (name: string) => repository(`golden/variants/${name}`);

/** What this engine makes of conversations, in the form of the golden. */
async function rendered(tokenizer: Tokenizer, template: ChatTemplate, conversations: readonly Conversation[]): Promise<unknown[]> {
  const one = async (chat: Chat) => {
    const { text, ids } = await encodeChat(tokenizer, template, chat);
    return [text, ids];
  };
  const results: unknown[] = [];
  for (const { messages, tools } of conversations) {
    const chat = { messages, tools: tools ?? undefined };
    results.push(await Promise.all([one({ ...chat, add_generation_prompt: false }), one({ ...chat, add_generation_prompt: true })]));
  }
  return results;
}

async function templateOf(name: string): Promise<[Tokenizer, ChatTemplate]> {
  if (name !== 'thinker') return [await Tokenizer.fromFolder(folderOf(name)), (await readChatTemplate(folderOf(name)))!];
  const [tokenizer, { variables }] = await templateOf('think_sft');
  return [tokenizer, { variables, sources: new Map([['default', readFileSync(folderOf('thinker.jinja'), 'utf8')]]) }];
}

describe.each(Object.keys(golden.expected))('chats of %s are those of HF', (name) => {
  test('apply_chat_template', async () => {
    expect(await rendered(...(await templateOf(name)), golden.chats)).toEqual(golden.expected[name]!.chats);
  });

  test('with the text of special tokens in messages, calls and tools', async () => {
    expect(await rendered(...(await templateOf(name)), golden.hostile)).toEqual(golden.expected[name]!.hostile);
  });
});

test('templates print and strip values as in Python, and refuse what it does not add', async () => {
  interface Case {
    readonly template: string;
    readonly text: string | null;
  }
  const { messages, cases } = JSON.parse(readFileSync(folderOf('jinja.json'), 'utf8')) as { messages: ChatMessage[]; cases: Case[] };
  const textOf = (template: string) =>
    renderChat({ sources: new Map([['default', template]]), variables: {} }, { messages, add_generation_prompt: false }).catch(() => null);
  const ours = await Promise.all(cases.map(async ({ template }) => ({ template, text: await textOf(template) })));
  expect(ours).toEqual(cases);
});

test('every chat has its golden, and the Think variants begin with the thinking', () => {
  expect(golden.chats.length).toBeGreaterThan(25);
  expect(golden.hostile.length).toBeGreaterThan(14);
  expect(Math.max(...golden.chats.map(({ messages }) => messages.length))).toBe(20);
  for (const [name, { chats, hostile }] of Object.entries(golden.expected)) {
    expect(chats).toHaveLength(golden.chats.length);
    expect(hostile).toHaveLength(golden.hostile.length);
    for (const [[without], [withPrompt]] of [...chats, ...hostile]) {
      expect(startsThinking(withPrompt)).toBe(name.startsWith('think'));
      expect(startsThinking(without)).toBe(false);
    }
  }
});

describe('the place of the template', () => {
  test('base has none; chat_template.jinja wins; a string; a list by name', async () => {
    expect(await readChatTemplate(folderOf('base'))).toBeNull();
    const named = async (name: string) => [...(await readChatTemplate(folderOf(name)))!.sources.keys()];
    expect(await named('instruct_sft')).toEqual(['default']);
    expect(await named('instruct_dpo')).toEqual(['default', 'tool_use']);
    expect(await named('think_sft')).toEqual(['default']);
    const config = JSON.parse(readFileSync(folderOf('instruct_sft/tokenizer_config.json'), 'utf8')) as { chat_template: string };
    expect((await readChatTemplate(folderOf('instruct_sft')))!.sources.get('default')).not.toBe(config.chat_template);
  });

  test('files by name, as transformers 5 saves a list', async () => {
    const dir = await temporaryFolder();
    const listed = (await readChatTemplate(folderOf('instruct_dpo')))!;
    await mkdir(join(dir, 'additional_chat_templates'));
    await cp(folderOf('base/tokenizer_config.json'), join(dir, 'tokenizer_config.json'));
    await writeFile(join(dir, 'chat_template.jinja'), listed.sources.get('default')!);
    await writeFile(join(dir, 'additional_chat_templates/tool_use.jinja'), listed.sources.get('tool_use')!);
    await writeFile(join(dir, 'additional_chat_templates/README.md'), 'no template');
    expect(await readChatTemplate(dir)).toEqual(listed);
  });
});

describe('config.json and generation_config.json', () => {
  test('the context of the release, NoPE in all spellings', async () => {
    const configs = await Promise.all(VARIANTS.map((name) => readConfig(folderOf(name))));
    expect(configs.map(({ max_position_embeddings }) => max_position_embeddings)).toEqual([65536, 32768, 32768, 32768]);
    for (const { rope, unknown_keys } of configs) {
      expect(rope).toEqual({ full_attention: null, sliding_attention: null });
      expect(unknown_keys).toEqual([]);
    }
  });

  test('a text ends with any of the tokens in the list', async () => {
    for (const name of VARIANTS) {
      const tokenizer = await Tokenizer.fromFolder(folderOf(name));
      const { eos_token_id } = await readGenerationConfig(folderOf(name));
      const ends = name === 'base' ? ['<|endoftext|>'] : ['<|im_end|>', '<|endoftext|>'];
      expect(eos_token_id).toEqual(ends.map((token) => tokenizer.idOf(token)));
    }
  });

  test('how its authors draw', async () => {
    const drawn = await Promise.all(VARIANTS.map((name) => readGenerationConfig(folderOf(name))));
    const options = drawn.map(({ do_sample, temperature, top_p, top_k }) => [do_sample, temperature, top_p, top_k]);
    const silent = [undefined, undefined, undefined, undefined];
    expect(options).toEqual([silent, silent, [true, 0.6, 0.95, undefined], [true, 0.6, 0.95, 0]]);
  });
});

describe.each(VARIANTS)('the model of %s', (name) => {
  test('logits are as near to the truth as those of PyTorch, and the greedy continuation is the same', async () => {
    for (const mode of ['strict', 'fast'] as const) {
      for await (const result of verify({ model: folderOf(name), mode })) {
        expect(result).toMatchObject({ kind: 'model', passed: true, greedy: { agreed: 24, compared: 24 } });
      }
    }
  });

  test('the reference is the truth', async () => {
    const { arrays } = await readGolden(folderOf(`${name}/expected.safetensors`));
    const { model } = await loadModel(folderOf(name), { kernels: 'reference' });
    const truth = arrays.get('logits.truth')!;
    const ours = logitsOf(model, arrays.get('input_ids')!, model.prefill_chunk);
    const largest = truth.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
    // As in golden.test.ts: float64 in another order of the sums.
    truth.forEach((value, i) => {
      expect(Math.abs(ours[i]! - value) / largest).toBeLessThan(1e-13);
    });
  });
});
