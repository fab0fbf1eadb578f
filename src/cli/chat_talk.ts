import type { Answer, AnswerOptions, Conversation } from '../chat/conversation.ts';
import { loadSession, saveSession } from '../chat/session_file.ts';
import { type SessionModel, sessionModel } from '../chat/session_model.ts';
import { describe, OlmoHybridError, type Problem, RuntimeLimitError } from '../errors.ts';
import type { ModelPlan } from '../load.ts';
import type { SamplingOptions } from '../sampler.ts';
import { visible } from '../checkpoint/problem_list.ts';
import { counted } from '../words.ts';
import type { ChatInput } from './chat_input.ts';
import { type AnswerOutput, notes } from './chat_output.ts';
import { engine } from './model_facts.ts';
import type { EngineFlags } from './options.ts';
import { duration, note, ProgressLine, scaled, warn } from './terminal.ts';

/** What a talk is made of. */
interface TalkParts {
  readonly conversation: Conversation;
  readonly input: ChatInput;
  readonly output: AnswerOutput;
  /** The model's folder. */
  readonly dir: string;
  readonly plan: ModelPlan;
  readonly flags: EngineFlags;
  /** Options that were given and come before those of a session. */
  readonly sampling: SamplingOptions;
}

/** What went on, for /stats. */
interface Sums {
  answers: number;
  prompt_tokens: number;
  cached_tokens: number;
  answer_tokens: number;
  prefill_ms: number;
  decode_ms: number;
}

/** A conversation at a terminal, or by a program: says, shows, saves, and tells what went wrong. */
export class Talk {
  readonly conversation: Conversation;
  readonly #parts: TalkParts;
  readonly #sums: Sums = { answers: 0, prompt_tokens: 0, cached_tokens: 0, answer_tokens: 0, prefill_ms: 0, decode_ms: 0 };
  #model: SessionModel | null = null;
  /** A message that the context has no room for, and whether it takes the place of the last one. */
  #waiting: { readonly text: string; readonly edit: boolean } | null = null;

  constructor(parts: TalkParts) {
    this.conversation = parts.conversation;
    this.#parts = parts;
  }

  /** @throws {OlmoHybridError} where nobody can be asked what to do */
  async say(text: string): Promise<void> {
    await this.#orExplain(text, false, () => this.#answer((options) => this.conversation.send(text, options)));
  }

  async regenerate(): Promise<void> {
    await this.#answer((options) => this.conversation.regenerate(options));
  }

  async edit(text: string): Promise<void> {
    await this.#orExplain(text, true, () => this.#answer((options) => this.conversation.edit(text, options)));
  }

  /** Forgets as many of the oldest messages as the waiting one needs, or the oldest turn, and says what waited. */
  async drop(): Promise<void> {
    const [waiting, { messages }] = [this.#waiting, this.conversation];
    const forget =
      waiting === null ? Math.min(2, messages.length) : (await this.conversation.toForget(waiting.text, waiting.edit)).messages;
    this.conversation.keep(forget, waiting?.edit ? messages.findLastIndex(({ role }) => role === 'user') : undefined);
    this.#waiting = null;
    note(`forgotten: the oldest ${counted(forget, 'message')}`);
    if (waiting !== null) await this.say(waiting.text);
  }

  clear(): void {
    this.conversation.keep(0, 0);
    this.#waiting = null;
    note('forgotten: all messages');
  }

  async save(path: string): Promise<void> {
    const bytes = await saveSession(path, this.conversation, await this.#sessionModel());
    note(`${path}: ${counted(this.conversation.messages.length, 'message')}, ${scaled(bytes, 'B')}`);
  }

  async load(path: string): Promise<void> {
    const { messages, state, differences } = await loadSession(path, this.conversation, await this.#sessionModel());
    this.#waiting = null;
    this.conversation.sampling = { ...this.conversation.sampling, ...this.#parts.sampling };
    note(`${path}: ${counted(messages, 'message')}${state ? ', to be gone on with at once' : ''}`);
    if (!state) warn(`${path}: only the messages were taken, all will be read again (${differences.join('; ')}).`);
    const last = this.conversation.messages.at(-1);
    if (this.#parts.input.forPerson && last) note(`last answer: ${visible((last.content ?? '').slice(-200))}`);
  }

  async stats(): Promise<void> {
    const { conversation, flags, plan } = this.#parts;
    const { checkpoints } = conversation;
    const { answers, prompt_tokens, cached_tokens, answer_tokens, prefill_ms, decode_ms } = this.#sums;
    const run = prompt_tokens - cached_tokens;
    const { positions, bytes } = checkpoints.kept;
    notes([
      ['context', `${checkpoints.position} of ${counted(checkpoints.context)}, ${counted(conversation.messages.length, 'message')}`],
      ['read', `${counted(run)}${rate(run, prefill_ms)}; ${cached_tokens} were in the caches already`],
      ['answered', `${counted(answer_tokens)} in ${counted(answers, 'answer')}${rate(answer_tokens - answers, decode_ms)}`],
      ['checkpoints', `${positions.length} of the state, ${scaled(bytes, 'B')} of at most ${scaled(checkpoints.limit_bytes, 'B')}`],
      ['memory', `${scaled(process.memoryUsage.rss(), 'B')} resident, ${scaled(plan.placement.total_bytes, 'B')} planned for the model`],
      ['engine', [plan.mode, `keys and values in ${plan.kv}`, ...(await engine(plan, flags))].join(', ')],
    ]);
  }

  /** Shows an answer while it comes. */
  async #answer(begin: (options: AnswerOptions) => AsyncGenerator<string, Answer, void>): Promise<void> {
    const { input, output } = this.#parts;
    let begun = false;
    const onPrompt: AnswerOptions['onPrompt'] = (prompt) => {
      begun = true;
      output.begin(prompt);
    };
    const answer = await input.whileAnswering(async (signal) => {
      try {
        const pieces = begin({ signal, onPrompt });
        let step = await pieces.next();
        for (; !step.done; step = await pieces.next()) output.push(step.value);
        return step.value;
      } finally {
        if (begun) output.end();
      }
    });
    this.#waiting = null;
    this.#count(answer);
    if (answer.finish_reason === 'abort') note(answer.tokens.length === 0 ? 'interrupted; nothing was said' : 'interrupted');
    if (answer.context_full) note(`cut: the context of ${this.conversation.checkpoints.context} tokens is full`);
    else if (answer.finish_reason === 'length') note("cut: the model's generation_config.json has no more max_new_tokens");
  }

  #count(answer: Answer): void {
    const sums = this.#sums;
    if (answer.tokens.length > 0) sums.answers += 1;
    for (const name of ['cached_tokens', 'prefill_ms', 'decode_ms'] as const) sums[name] += answer[name];
    // Of a prompt that was interrupted a part was read.
    sums.prompt_tokens += Math.min(answer.prompt_tokens, this.conversation.checkpoints.position);
    sums.answer_tokens += answer.tokens.length;
  }

  /** Offers ways on where the context is full. A recurrent state cannot be shifted: what is forgotten is forgotten by reading the rest again. */
  async #orExplain(text: string, edit: boolean, answer: () => Promise<void>): Promise<void> {
    try {
      await answer();
    } catch (error) {
      if (!(error instanceof RuntimeLimitError)) throw error;
      const [problem] = error.problems as [Problem];
      const longer = 'Shorten the message, or start again with a longer --context.';
      if (!this.#parts.input.forPerson) throw new RuntimeLimitError({ ...problem, fix: `${longer} /drop forgets the oldest messages.` });
      const { messages, tokens } = await this.conversation.toForget(text, edit);
      const { prompt_tokens, cached_tokens, prefill_ms } = this.#sums;
      const seconds = (tokens * prefill_ms) / Math.max(1, prompt_tokens - cached_tokens) / 1000;
      warn(describe({ ...problem, fix: messages > 0 ? 'What now?' : longer }));
      if (messages === 0) return;
      this.#waiting = { text, edit };
      const { context } = this.conversation.checkpoints;
      notes([
        [
          '/drop',
          `forget the oldest ${counted(messages, 'message')}, read ${counted(tokens)} again (about ${duration(seconds)}), answer this one`,
        ],
        ['/clear', 'forget all messages'],
        ['/save FILE', `and start again with --session FILE --context ${2 * context}`],
      ]);
    }
  }

  async #sessionModel(): Promise<SessionModel> {
    const { dir, plan, flags } = this.#parts;
    const progress = new ProgressLine('hashing the weights');
    let done = 0;
    const onRead = (bytes: number) => {
      done += bytes;
      progress.update(done, plan.stored_bytes);
    };
    this.#model ??= await sessionModel(dir, plan, flags.kernels, onRead).finally(() => progress.end());
    return this.#model;
  }
}

/** Tells a person what went wrong, and the program goes on. @throws what is no mistake of a user's */
export function explain(error: unknown): void {
  if (!(error instanceof OlmoHybridError)) throw error;
  for (const problem of error.problems) warn(visible(describe(problem)));
}

function rate(tokens: number, ms: number): string {
  return tokens > 0 && ms > 0 ? `, ${Number(((1000 * tokens) / ms).toPrecision(3))} tokens/s` : '';
}
