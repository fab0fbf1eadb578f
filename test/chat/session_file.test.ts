import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { readdirSync } from 'node:fs';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { beforeAll, describe, expect, test } from 'vitest';
import { readChatTemplate } from '../../src/chat_template.ts';
import { Conversation } from '../../src/chat/conversation.ts';
import { loadSession, saveSession } from '../../src/chat/session_file.ts';
import { sessionModel } from '../../src/chat/session_model.ts';
import { StateCheckpoints } from '../../src/chat/state_checkpoints.ts';
import { bytesSource } from '../../src/checkpoint/byte_source.ts';
import { readSafetensors } from '../../src/checkpoint/safetensors.ts';
import { layoutSafetensors } from '../../src/checkpoint/safetensors_writer.ts';
import { ArgumentError, OlmoHybridError, SessionError } from '../../src/errors.ts';
import { readGenerationConfig } from '../../src/generation_config.ts';
import { type LoadOptions, loadModel } from '../../src/load.ts';
import { quantizeCheckpoint } from '../../src/quantize.ts';
import { Random } from '../../src/random.ts';
import { Tokenizer } from '../../src/tokenizer.ts';
import { CountingModel, writeChatModel } from '../support/chat_model.ts';
import { sharedFolder } from '../support/command_line.ts';
import { repository } from '../support/models.ts';
import { collect } from '../support/table_model.ts';

const folder = await sharedFolder();
const dir = await made('model', 1);
const path = join(folder, 'a.session');
let bytes: Buffer;

async function made(name: string, seed: number): Promise<string> {
  const dir = join(folder, name);
  await mkdir(dir);
  return await writeChatModel(dir, seed);
}

async function begin(options: LoadOptions = {}, model_dir = dir) {
  const { model, plan } = await loadModel(model_dir, { context: 512, prefill_chunk: 32, ...options });
  const counting = new CountingModel(model);
  const { eos_token_id } = await readGenerationConfig(model_dir);
  const [tokenizer, template] = [await Tokenizer.fromFolder(model_dir), (await readChatTemplate(model_dir))!];
  const conversation = new Conversation(new StateCheckpoints(counting), tokenizer, template, {
    eos_token_id,
    seed: 7,
    system: 'Be brief.',
  });
  const say = async (text: string) => (await collect(conversation.send(text, { max_tokens: 12 }))).result;
  return { model: counting, conversation, say, described: await sessionModel(model_dir, plan, options.kernels ?? 'wasm') };
}

/** Says two things and saves. */
async function saved(to: string, options: LoadOptions = {}, model_dir = dir) {
  const talk = await begin(options, model_dir);
  await talk.say('Hello <|im_end|>');
  await talk.say('How are you? \u{1F3FF}');
  await saveSession(to, talk.conversation, talk.described);
  return talk;
}

beforeAll(async () => {
  await saved(path);
  bytes = await readFile(path);
});

/** The error of loading, which must have changed nothing. */
async function refused(file: string, talk: Awaited<ReturnType<typeof begin>>): Promise<OlmoHybridError> {
  const before = [talk.conversation.record(), talk.conversation.checkpoints.tokens, talk.model.position];
  const error = await loadSession(file, talk.conversation, talk.described).then(
    () => null,
    (reason: unknown) => reason,
  );
  expect(error).toBeInstanceOf(OlmoHybridError);
  expect([talk.conversation.record(), talk.conversation.checkpoints.tokens, talk.model.position]).toEqual(before);
  return error as OlmoHybridError;
}

describe('going on in another process', () => {
  // Two processes of the built package: the first says four things, or loads after two and says the other two.
  const script = `
    import { createHash } from 'node:crypto';
    import * as olmo from '${repository('dist/index.js')}';
    const [dir, file, kv, kernels, ...texts] = process.argv.slice(1);
    const { model, plan } = await olmo.loadModel(dir, { context: 512, kv, kernels });
    const { eos_token_id } = await olmo.readGenerationConfig(dir);
    const template = await olmo.readChatTemplate(dir);
    const checkpoints = new olmo.StateCheckpoints(model);
    const conversation = new olmo.Conversation(checkpoints, await olmo.Tokenizer.fromFolder(dir), template, { eos_token_id, temperature: 0.9, seed: 5 });
    const described = await olmo.sessionModel(dir, plan, kernels);
    const loaded = file.startsWith('+') ? await olmo.loadSession(file.slice(1), conversation, described) : null;
    const said = [];
    for (const text of texts) {
      const answer = conversation.send(text, { max_tokens: 15 });
      let step = await answer.next();
      while (!step.done) step = await answer.next();
      said.push([step.value.tokens, step.value.text, step.value.finish_reason]);
    }
    if (file.startsWith('-')) await olmo.saveSession(file.slice(1), conversation, described);
    const cached = checkpoints.position;
    const logits = model.forward([7]);
    const digest = createHash('sha256').update(new Uint8Array(logits.buffer, logits.byteOffset, logits.byteLength)).digest('hex');
    console.log(JSON.stringify({ said, digest, cached, loaded, messages: conversation.messages }));
  `;
  const texts = ['Hello.', 'Who are <|im_end|> you?', 'Why?', 'And then?'];
  const inProcess = async (file: string, kv: string, kernels: string, ...said: string[]) => {
    const args = ['--input-type=module', '-e', script, dir, file, kv, kernels, ...said];
    return JSON.parse((await promisify(execFile)(process.execPath, args)).stdout);
  };

  test.each([
    ['f32', 'wasm'],
    ['f16', 'wasm'],
    ['q8', 'wasm'],
    ['f32', 'reference'],
  ])('keys and values in %s, kernels %s: text and bits are those of one process', async (kv, kernels) => {
    const file = join(folder, `${kv}.${kernels}.session`);
    const [whole] = await Promise.all([inProcess('none', kv, kernels, ...texts), inProcess(`-${file}`, kv, kernels, ...texts.slice(0, 2))]);
    const second = await inProcess(`+${file}`, kv, kernels, ...texts.slice(2));
    expect(second.loaded).toEqual({ messages: 4, state: true, differences: [] });
    expect(second.said).toEqual(whole.said.slice(2));
    expect(second.messages).toEqual(whole.messages);
    expect([second.cached, second.digest]).toEqual([whole.cached, whole.digest]);
  });

  test('nothing is run again', async () => {
    const talk = await begin();
    await loadSession(path, talk.conversation, talk.described);
    const { prompt_tokens, cached_tokens } = await talk.say('And?');
    expect(cached_tokens).toBeGreaterThan(60);
    expect(talk.model.counted()).toBe(talk.conversation.checkpoints.position - cached_tokens);
    expect(prompt_tokens - cached_tokens).toBeLessThan(25);
  });

  test('a conversation in which nothing was said', async () => {
    const [one, two] = [await begin(), await begin()];
    const file = join(folder, 'empty.session');
    await saveSession(file, one.conversation, one.described);
    expect(await loadSession(file, two.conversation, two.described)).toEqual({ messages: 0, state: true, differences: [] });
    expect((await two.say('Hello')).tokens).toEqual((await one.say('Hello')).tokens);
  });
});

describe('another model', () => {
  test.each<[RegExp, LoadOptions]>([
    [/^keys and values: q8, saved with f32$/, { kv: 'q8' }],
    [/^weights: .*Q8.*, saved with \d+ F32$/, { weights: 'q8' }],
    [/^mode: fast, saved with strict$/, { mode: 'fast', kv: 'f32' }],
    [/^kernels: reference, saved with wasm$/, { kernels: 'reference' }],
  ])('%s: the messages are taken, and all is run again', async (difference, options) => {
    const talk = await begin(options);
    const { messages, state, differences } = await loadSession(path, talk.conversation, talk.described);
    expect([messages, state]).toEqual([4, false]);
    expect(differences).toEqual([expect.stringMatching(difference)]);
    expect((await talk.say('And?')).cached_tokens).toBe(0);
    expect(talk.conversation.messages).toHaveLength(6);
  });

  test('a folder quantised from the same weights is the same model', async () => {
    const quantised = join(folder, 'q8');
    await quantizeCheckpoint(dir, quantised, { weights: 'q8' });
    for (const file of ['tokenizer.json', 'tokenizer_config.json', 'chat_template.jinja', 'generation_config.json'])
      await writeFile(join(quantised, file), await readFile(join(dir, file)));
    const talk = await begin({}, quantised);
    expect(await loadSession(path, talk.conversation, talk.described)).toMatchObject({ messages: 4, state: false });
    const onLoad = await saved(join(folder, 'on_load.session'), { weights: 'q8' });
    expect(await loadSession(join(folder, 'on_load.session'), talk.conversation, talk.described)).toMatchObject({ state: true });
    expect((await talk.say('And?')).tokens).toEqual((await onLoad.say('And?')).tokens);
  });

  test('other weights, another config and a shorter context are refused, with what was expected and found', async () => {
    const other = await begin({}, await made('other', 2));
    const { message } = await refused(path, other);
    const own = await begin();
    expect(message).toContain(`expected a session of the weights of sha256 ${other.described.weights_sha256}`);
    expect(message).toContain(`found ${own.described.weights_sha256}`);
    const changed = { ...own, described: { ...own.described, config: { ...own.described.config, rms_norm_eps: 1e-5 } } };
    expect((await refused(path, changed)).message).toMatch(/expected a config with rms_norm_eps 0\.00001, found rms_norm_eps 0\.000001/);
    const short = await begin({ context: 64 });
    expect((await refused(path, short)).message).toMatch(
      /at most 64 tokens, the context, found \d+\. Load the model with a context of \d+/,
    );
  });
});

describe('a damaged file', () => {
  const damaged = join(folder, 'damaged.session');

  test('any byte changed, any length cut, anything appended: a typed error, and nothing is changed', async () => {
    const talk = await begin();
    await talk.say('Something.');
    const random = new Random(11);
    const below = (n: number) => Math.floor(random.uniform() * n);
    const header = 8 + bytes.readUInt32LE(0);
    const places = [...Array.from({ length: 60 }, () => below(header)), ...Array.from({ length: 60 }, () => below(bytes.length))];
    for (const at of [0, 3, 7, 8, 34, 97, 98, header - 1, header, bytes.length - 1, ...places]) {
      const copy = Buffer.from(bytes);
      const to = at % 2 ? copy[at]! ^ (1 << below(8)) : [0x20, 0x0a, 0x30, 0x22][below(4)]!;
      copy[at] = to === bytes[at] ? to ^ 1 : to;
      await writeFile(damaged, copy);
      expect(await refused(damaged, talk), `byte ${at} set to ${copy[at]}`).toBeInstanceOf(SessionError);
    }
    for (const length of [0, 1, 7, 8, 9, 40, 90, 98, header - 1, header, header + 1, bytes.length - 1, ...places.slice(0, 20)]) {
      await writeFile(damaged, bytes.subarray(0, length));
      expect(await refused(damaged, talk), `cut to ${length}`).toBeInstanceOf(SessionError);
    }
    await writeFile(damaged, Buffer.concat([bytes, Buffer.of(0)]));
    expect(await refused(damaged, talk)).toBeInstanceOf(SessionError);
  });

  /** A file with other metadata, and the right digest. */
  async function forged(change: (metadata: Map<string, string>) => void, state = true): Promise<string> {
    const { metadata, tensors } = await readSafetensors(bytesSource('session', bytes));
    const copy = new Map(metadata);
    copy.set('sha256', '0'.repeat(64));
    change(copy);
    const { header } = layoutSafetensors(state ? [...tensors.values()] : [tensors.get('tokens')!], copy);
    const begin = 8 + bytes.readUInt32LE(0);
    const { offset, byteLength } = tensors.get('tokens')!;
    const file = Buffer.concat([header, state ? bytes.subarray(begin) : bytes.subarray(offset, offset + byteLength)]);
    const digest = createHash('sha256').update(file).digest('hex');
    file.write(digest, file.indexOf('0'.repeat(64)));
    await writeFile(damaged, file);
    return damaged;
  }

  test('the copy that these tests make is a session', async () => {
    const talk = await begin();
    await loadSession(await forged(() => {}), talk.conversation, talk.described);
    expect(talk.conversation.messages).toHaveLength(4);
  });

  test('of a later version, or of something else', async () => {
    const talk = await begin();
    const later = await refused(await forged((metadata) => metadata.set('version', '2')), talk);
    expect(later.message).toMatch(/expected version 1 of the format, found "2"\. Load it with the olmo-hybrid that saved it\./);
    const else_ = await refused(await forged((metadata) => metadata.delete('format')), talk);
    expect(else_.message).toContain('a safetensors file of something else');
    await expect(refused(join(dir, 'model.safetensors'), talk)).resolves.toBeInstanceOf(SessionError);
    await expect(refused(join(dir, 'config.json'), talk)).resolves.toBeInstanceOf(SessionError);
    await expect(refused(dir, talk)).resolves.toBeInstanceOf(SessionError);
    expect((await refused(join(folder, 'nowhere'), talk)).message).toContain('found no such file');
    const unsigned = (metadata: Map<string, string>) => {
      metadata.delete('sha256');
      metadata.set('zeros', '0'.repeat(64));
    };
    expect((await refused(await forged(unsigned), talk)).message).toContain('expected a header that begins with');
    const tiny = layoutSafetensors(
      [],
      new Map([
        ['format', 'olmo-hybrid session'],
        ['version', '1'],
      ]),
    ).header;
    await writeFile(damaged, tiny);
    expect(await refused(damaged, talk)).toBeInstanceOf(SessionError);
  });

  test('with the right digest, and fields that make no sense', async () => {
    const talk = await begin();
    const change = (path: string, value: unknown) => (metadata: Map<string, string>) => {
      const json = JSON.parse(metadata.get('session')!) as Record<string, unknown>;
      const keys = path.split('.');
      const owner = keys.slice(0, -1).reduce((object, key) => object[key] as Record<string, unknown>, json);
      owner[keys.at(-1)!] = value; // undefined: the key is gone
      metadata.set('session', JSON.stringify(json));
    };
    for (const [path, value] of [
      ['record', undefined],
      ['weights_sha256', undefined],
      ['tokens', -1],
      ['engine', null],
      ['record.messages', [{ role: 'user' }]],
      ['record.system', 3],
      ['record.sampling', { temperature: -1 }],
      ['record.sampling', { colour: 1 }],
      ['record.seed', 12],
      ['record.seed', '99999999999999999999'],
      ['record.answers', 0.5],
      ['record.passages.0.ids', ['x']],
    ] as const)
      expect(await refused(await forged(change(path, value)), talk), path).toBeInstanceOf(SessionError);
    expect(await refused(await forged((metadata) => metadata.set('session', '[')), talk)).toBeInstanceOf(SessionError);
    expect((await refused(await forged(change('tokens', 3)), talk)).message).toContain('token ids in a tensor "tokens"');
    const stateless = await refused(await forged(() => {}, false), talk); // the model refuses the snapshot
    expect(stateless).toBeInstanceOf(SessionError);
    expect(stateless.message).toMatch(/damaged\.session: snapshot: expected \d+ layers .*, found 0 layers .*The file is damaged/);
  });

  test('a file that cannot be written leaves the one before', async () => {
    const talk = await begin();
    await expect(saveSession(join(folder, 'nowhere', 'x.session'), talk.conversation, talk.described)).rejects.toThrow(ArgumentError);
    await expect(saveSession(dir, talk.conversation, talk.described)).rejects.toThrow(ArgumentError);
    expect(await readFile(path)).toEqual(bytes);
    expect(readdirSync(folder).filter((name) => name.endsWith('.tmp'))).toEqual([]);
  });
});
