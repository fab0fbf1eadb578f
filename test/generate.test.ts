import fc from 'fast-check';
import { afterEach, describe, expect, test, vi } from 'vitest';
import { type CausalLM, type FinishReason, type GenerateOptions, generate } from '../src/generate.ts';
import { collect, expectedTokens, refusal, TableModel } from './support/table_model.ts';

async function run(model: CausalLM, prompt: readonly number[], options: GenerateOptions = {}) {
  const { pieces, result } = await collect<number, FinishReason>(generate(model, prompt, options));
  return { tokens: pieces, finish_reason: result };
}

const prompt = [3, 1, 4, 1, 5, 9, 2, 6, 5];

describe('generate', () => {
  test('prompt in chunks, then one token at a time, every token but the last run once', async () => {
    const model = new TableModel();
    const { tokens, finish_reason } = await run(model, prompt, { max_tokens: 5, temperature: 0 });
    expect(tokens).toEqual(expectedTokens(prompt, 5, { temperature: 0 }));
    expect(finish_reason).toBe('length');
    expect(model.calls).toEqual([[3, 1, 4, 1], [5, 9, 2, 6], [5], ...tokens.slice(0, 4).map((id) => [id])]);
    expect(model.resets).toBe(1);
  });

  test('tokens do not depend on the chunk', async () => {
    const prompts = fc.array(fc.nat(22), { minLength: 1, maxLength: 20 });
    const options = fc.record({
      temperature: fc.constantFrom(0, 0.7, 1.5),
      top_p: fc.constantFrom(0.8, 1),
      repetition_penalty: fc.constantFrom(1, 1.3),
      seed: fc.maxSafeNat(),
      max_tokens: fc.nat(12),
    });
    await fc.assert(
      fc.asyncProperty(prompts, options, fc.integer({ min: 1, max: 25 }), async (ids, chosen, prefill_chunk) => {
        const { tokens, finish_reason } = await run(new TableModel({ prefill_chunk }), ids, chosen);
        expect(tokens).toEqual(expectedTokens(ids, chosen.max_tokens, chosen));
        expect(finish_reason).toBe('length');
      }),
    );
  });

  test('starts anew on a used model', async () => {
    const model = new TableModel();
    await run(model, [7, 7], { max_tokens: 3 });
    const { tokens } = await run(model, prompt, { max_tokens: 6 });
    expect(tokens).toEqual(expectedTokens(prompt, 6, {}));
  });

  test('goes on from caches that hold the beginning of the prompt, of which the penalty sees all', async () => {
    for (const cached of [1, 5, 8]) {
      const model = new TableModel();
      for (const id of prompt.slice(0, cached)) model.forward([id]);
      model.calls.length = 0;
      const options = { max_tokens: 6, repetition_penalty: 3, seed: 2 };
      const { tokens } = await run(model, prompt, { ...options, cached });
      expect(tokens).toEqual(expectedTokens(prompt, 6, options));
      expect(tokens).not.toEqual(expectedTokens(prompt, 6, { ...options, repetition_penalty: 1 }));
      expect(model.resets).toBe(0);
      expect(model.calls.flat()).toEqual([...prompt.slice(cached), ...tokens.slice(0, -1)]);
    }
  });

  test.each([3, 9, 10, -1, 0.5])('but not where they hold 2 tokens, and the caller says %d', async (cached) => {
    const model = new TableModel();
    model.forward([3, 1]);
    const { message } = await refusal(generate(model, prompt, { cached }));
    expect(message).toContain(
      `cached: expected 0, or the 2 tokens in the caches if the prompt is longer than them, found ${cached} of a prompt of 9`,
    );
    expect((await refusal(generate(model, prompt.slice(0, 2), { cached: 2 }))).message).toContain('found 2 of a prompt of 2');
    expect(model.calls).toHaveLength(1);
  });

  test('a stop token ends it and is generated itself', async () => {
    const all = expectedTokens(prompt, 20, { seed: 3 });
    for (const eos_token_id of [[all[4]!], [all[9]!, 999, all[6]!]]) {
      const model = new TableModel();
      const { tokens, finish_reason } = await run(model, prompt, { seed: 3, eos_token_id });
      const first = all.findIndex((id) => eos_token_id.includes(id));
      expect(tokens).toEqual(all.slice(0, first + 1));
      expect(finish_reason).toBe('stop');
      expect(model.position).toBe(prompt.length + first);
    }
  });

  test('a stop token that is also the last allowed token is a stop', async () => {
    const [first] = expectedTokens(prompt, 1, {});
    expect(await run(new TableModel(), prompt, { max_tokens: 1, eos_token_id: [first!] })).toEqual({
      tokens: [first],
      finish_reason: 'stop',
    });
  });

  test.each([
    [9, 1],
    [10, 1],
    [12, 3],
    [12, 100],
  ])('context %i, max_tokens %i: prompt and tokens never exceed the context', async (context, max_tokens) => {
    const model = new TableModel({ context });
    const { tokens, finish_reason } = await run(model, prompt, { max_tokens });
    expect(tokens).toEqual(expectedTokens(prompt, Math.min(max_tokens, context - prompt.length), {}));
    expect(finish_reason).toBe('length');
  });

  test('without max_tokens it fills the context', async () => {
    expect((await run(new TableModel({ context: 30 }), prompt)).tokens).toEqual(expectedTokens(prompt, 21, {}));
  });

  test('max_tokens 0 does not touch the model', async () => {
    const model = new TableModel();
    expect(await run(model, prompt, { max_tokens: 0 })).toEqual({ tokens: [], finish_reason: 'length' });
    expect([model.resets, model.calls]).toEqual([0, []]);
  });

  test('NaN logits reject with a typed error, and the model is usable after', async () => {
    const broken = new TableModel();
    const { forward } = broken;
    broken.forward = (tokens) => (broken.position === 10 ? new Float32Array(23).fill(Number.NaN, 7, 9) : forward.call(broken, tokens));
    const ids = generate(broken, prompt);
    await ids.next();
    await ids.next();
    expect((await refusal(ids)).message).toContain('2 NaN and 0 +Infinity of 23, first at id 7');
    broken.forward = forward;
    expect((await run(broken, prompt, { max_tokens: 4 })).tokens).toEqual(expectedTokens(prompt, 4, {}));
  });

  test('a prompt changed by its owner on the way changes nothing', async () => {
    const ids = [...prompt];
    const model = new TableModel();
    model.onForward = () => ids.fill(0);
    expect((await run(model, ids, { max_tokens: 4 })).tokens).toEqual(expectedTokens(prompt, 4, {}));
  });

  test('of two generations on one model the later one goes on and the earlier one says so', async () => {
    const model = new TableModel();
    const first = generate(model, prompt);
    const second = generate(model, [8, 8], { max_tokens: 4 });
    await first.next();
    const begun = await second.next();
    expect((await refusal(first)).message).toContain('one generation at a time');
    const { pieces } = await collect(second);
    expect([begun.value, ...pieces]).toEqual(expectedTokens([8, 8], 4, {}));
  });

  test('a generation whose model someone else has moved to the same position says so', async () => {
    const model = new TableModel();
    const ids = generate(model, prompt);
    await ids.next();
    model.reset();
    for (const id of prompt) model.forward([id + 1]);
    expect((await refusal(ids)).message).toContain('one generation at a time');
  });

  test('two that run in turns never mix', async () => {
    const model = new TableModel({ prefill_chunk: 1 });
    const [first, second] = await Promise.allSettled([run(model, prompt, { max_tokens: 6 }), run(model, [8, 8], { max_tokens: 6 })]);
    expect(first.status).toBe('rejected');
    expect(second).toMatchObject({ value: { tokens: expectedTokens([8, 8], 6, {}) } });
  });
});

describe('refusals come before the model runs', () => {
  test.each<[string, readonly number[], GenerateOptions, readonly string[]]>([
    ['empty prompt', [], {}, ['prompt: expected at least one token, found none']],
    ['empty prompt, max_tokens 0', [], { max_tokens: 0 }, ['prompt: expected at least one token, found none']],
    ['prompt too long', new Array(65).fill(1), {}, ['prompt: expected at most the 64 tokens of the context, found 65 tokens']],
    ['id out of range', [1, 22, 23], {}, ['prompt[2]: expected a token id, an integer in [0, 23), found 23']],
    ['negative id', [-1], {}, ['prompt[0]: expected a token id, an integer in [0, 23), found -1']],
    ['fraction and NaN', [1, 1.5, Number.NaN, 2], {}, ['prompt[1]: expected a token id, an integer in [0, 23), found 1.5 and 1 more such']],
    ['text for an id', ['1' as unknown as number], {}, ['prompt[0]: expected a token id, an integer in [0, 23), found "1"']],
    ['max_tokens', [1], { max_tokens: -1 }, ['max_tokens: expected an integer of at least 0, found -1']],
    ['eos_token_id', [1], { eos_token_id: [2, 0.5] }, ['eos_token_id: expected a list of token ids, found 2,0.5']],
    [
      'eos_token_id that is no list',
      [1],
      { eos_token_id: 2 as unknown as number[] },
      ['eos_token_id: expected a list of token ids, found 2'],
    ],
    ['no prompt', undefined as unknown as number[], {}, ['prompt: expected a list of token ids, found undefined']],
    ...[0, -1, 1.5, Number.NaN, '5' as unknown as number].map((vocab_size): [string, number[], GenerateOptions, string[]] => [
      `vocab_size ${vocab_size}`,
      [1],
      { vocab_size },
      [`vocab_size: expected an integer of at least 1, found ${vocab_size}`],
    ]),
    [
      'everything at once',
      new Array(70).fill(99),
      { temperature: -1, seed: 0.1, max_tokens: 0.5 },
      ['prompt: ', 'prompt[0]: ', 'temperature: ', 'seed: ', 'max_tokens: '],
    ],
  ])('%s', async (_, ids, options, expected) => {
    const model = new TableModel();
    const { problems, message } = await refusal(generate(model, ids, options));
    expect(problems).toHaveLength(expected.length);
    for (const part of expected) expect(message).toContain(part);
    expect([model.resets, model.calls]).toEqual([0, []]);
  });
});

describe('abort', () => {
  afterEach(() => vi.unstubAllGlobals());

  test('at every forward call of prefill and decode: no further call, no further token', async () => {
    const reached = expectedTokens(prompt, 5, {});
    for (let abort_at = 0; abort_at <= 7; abort_at++) {
      const model = new TableModel();
      const controller = new AbortController();
      if (abort_at === 0) controller.abort();
      model.onForward = (call) => {
        if (call === abort_at) controller.abort();
      };
      const { tokens, finish_reason } = await run(model, prompt, { max_tokens: 5, signal: controller.signal });
      expect(finish_reason).toBe('abort');
      expect(model.calls).toHaveLength(abort_at);
      expect(tokens).toEqual(reached.slice(0, Math.max(0, abort_at - 3)));
      controller.abort(); // twice
      model.onForward = () => {};
      expect((await run(model, prompt, { max_tokens: 5 })).tokens).toEqual(reached);
    }
  });

  test('between two tokens: the model does not run again', async () => {
    const model = new TableModel();
    const controller = new AbortController();
    const ids = generate(model, prompt, { signal: controller.signal });
    await ids.next();
    controller.abort();
    expect(await ids.next()).toEqual({ done: true, value: 'abort' });
    expect(await ids.next()).toEqual({ done: true, value: undefined });
    expect(model.calls).toHaveLength(3);
  });

  test('after the last token: it had ended already', async () => {
    const controller = new AbortController();
    const ids = generate(new TableModel(), prompt, { max_tokens: 1, signal: controller.signal });
    await ids.next();
    controller.abort();
    expect((await ids.next()).value).toBe('length');
  });

  test('a consumer that leaves the loop ends it', async () => {
    const model = new TableModel();
    for await (const _ of generate(model, prompt)) break;
    expect(model.calls).toHaveLength(3);
    expect((await run(model, prompt, { max_tokens: 2 })).tokens).toEqual(expectedTokens(prompt, 2, {}));
  });

  test.each([
    ['setImmediate', () => {}],
    ['MessageChannel', () => vi.stubGlobal('setImmediate', undefined)],
  ])('a timer fires within one call (%s)', async (_, stub) => {
    stub();
    const model = new TableModel({ context: 4000, prefill_chunk: 1 });
    const controller = new AbortController();
    let calls_at_abort = 0;
    setTimeout(() => {
      calls_at_abort = model.calls.length;
      controller.abort();
    }, 20);
    model.onForward = () => {
      const end = performance.now() + 1;
      while (performance.now() < end); // a forward call blocks its thread
    };
    const { finish_reason } = await run(model, new Array(2000).fill(1), { signal: controller.signal });
    expect(finish_reason).toBe('abort');
    expect(model.calls.length - calls_at_abort).toBeLessThanOrEqual(1);
  });
});
