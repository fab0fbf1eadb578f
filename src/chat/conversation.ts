import { type ChatMessage, type ChatTemplate, renderMarkedChat } from '../chat_template.ts';
import { ArgumentError, RuntimeLimitError } from '../errors.ts';
import { eosProblems, type FinishReason, generate, type SuppressionOptions } from '../generate.ts';
import type { Snapshot } from '../model/olmo_hybrid.ts';
import { seedProblems } from '../random.ts';
import { type SamplingOptions, samplingProblems } from '../sampler.ts';
import { thinkingOpening } from '../thinking.ts';
import type { Tokenizer } from '../tokenizer.ts';
import type { StateCheckpoints } from './state_checkpoints.ts';
import { idsOf, type Passage, weave } from './transcript.ts';

export interface ConversationOptions extends SamplingOptions, SuppressionOptions {
  /** Tokens that end an answer. */
  readonly eos_token_id: readonly number[];
  /** What the model is told before the first message. Default: what the template says by itself. */
  readonly system?: string | null | undefined;
  /** Of the random numbers: the same seed gives the same conversation. Default 0. */
  readonly seed?: number | bigint | undefined;
  /** Tokens of the context that an answer has room for at least; otherwise it is not begun. Default 64, or a quarter of the context if that is less. */
  readonly least_room?: number | undefined;
  /** Most tokens of an answer. Default: as many as the context has room for. */
  readonly max_tokens?: number | undefined;
}

export interface AnswerOptions {
  /** Most tokens of this answer. Default: that of the conversation. */
  readonly max_tokens?: number | undefined;
  /** Ends the answer within one forward call. */
  readonly signal?: AbortSignal | undefined;
  /** Called before the prompt is run, with what of it will be. */
  readonly onPrompt?: ((prompt: Prompt) => void) | undefined;
}

/** What the model reads before it answers. */
export interface Prompt {
  /** How it ends: what the template writes at the beginning of an answer, such as `<think>`. */
  readonly opening: string;
  readonly tokens: number;
  /** How many of them the caches hold already. */
  readonly cached_tokens: number;
}

/** What a model answered. */
export interface Answer {
  /** The generated token ids, with the one that ended them. */
  readonly tokens: readonly number[];
  /** The generated text, without it. */
  readonly text: string;
  readonly finish_reason: FinishReason;
  /** Whether it was cut because the context is full. */
  readonly context_full: boolean;
  readonly prompt_tokens: number;
  /** How many of them the caches held already. */
  readonly cached_tokens: number;
  /** Until the first token. */
  readonly prefill_ms: number;
  /** From the first token to the last. */
  readonly decode_ms: number;
}

/** What is needed to go on with a conversation elsewhere, the model's state aside. */
export interface ConversationRecord {
  readonly messages: readonly ChatMessage[];
  readonly system: string | null;
  readonly sampling: SamplingOptions;
  readonly seed: bigint;
  /** Answers begun so far: each has random numbers of its own. */
  readonly answers: number;
  readonly passages: readonly Passage[];
}

/** What the caches hold. */
export interface ConversationState {
  readonly tokens: readonly number[];
  readonly snapshot: Snapshot;
}

const DEFAULT_LEAST_ROOM = 64;

/**
 * A conversation with a model by its chat template. The whole chat is the prompt of every answer, but only what the model has not seen is run: an
 * answer keeps the ids that it was generated with, and where the template or the user changed what was said before, the model goes back to the last
 * checkpoint before that.
 *
 * One answer at a time. What is said by a user never becomes a special token.
 */
export class Conversation {
  readonly checkpoints: StateCheckpoints;
  readonly least_room: number;
  sampling: SamplingOptions;
  /** A change takes effect with the next answer, for which all is run again. null: what the template says by itself. */
  system: string | null;
  readonly #tokenizer: Tokenizer;
  readonly #template: ChatTemplate;
  readonly #eos: readonly number[];
  readonly #rules: SuppressionOptions & Pick<AnswerOptions, 'max_tokens'>;
  #messages: readonly ChatMessage[] = [];
  #passages: readonly Passage[] = [];
  #seed: bigint;
  #answers = 0;
  #answering = false;

  /** @throws {ArgumentError} when an option is out of range */
  constructor(checkpoints: StateCheckpoints, tokenizer: Tokenizer, template: ChatTemplate, options: ConversationOptions) {
    const { eos_token_id, system = null, seed = 0, least_room, ...rest } = options;
    const { max_tokens, suppress_tokens, begin_suppress_tokens, min_new_tokens, ...sampling } = rest;
    const problems = [...eosProblems(eos_token_id), ...samplingProblems(sampling), ...seedProblems(seed)];
    if (problems.length > 0) throw new ArgumentError(problems);
    this.checkpoints = checkpoints;
    this.least_room = least_room ?? Math.min(DEFAULT_LEAST_ROOM, checkpoints.context >> 2);
    this.sampling = sampling;
    this.#rules = { max_tokens, suppress_tokens, begin_suppress_tokens, min_new_tokens };
    this.system = system;
    this.#tokenizer = tokenizer;
    this.#template = template;
    this.#eos = eos_token_id;
    this.#seed = BigInt(seed);
  }

  /** The messages of user and assistant, in turns. */
  get messages(): readonly ChatMessage[] {
    return this.#messages;
  }

  /**
   * Says something and gives the answer. Both are part of the conversation once the answer has a token, also when it is cut by the signal or by who
   * leaves the iterator; before that, nothing was said.
   * @returns an async iterator of pieces of text, none of them empty, which joined are the `text` of its return value
   * @throws {RuntimeLimitError} when the context has no room for an answer; TokenizerError as `encodeChat`; ArgumentError as `generate`, and when
   *   another answer has not ended
   */
  send(text: string, options: AnswerOptions = {}): AsyncGenerator<string, Answer, void> {
    return this.#answer(() => [...this.#messages, { role: 'user', content: text }], options);
  }

  /**
   * Answers the last message anew, with other random numbers. The answer takes the place of the last one once it has a token.
   * @throws as `send`; ArgumentError when nothing has been said
   */
  regenerate(options: AnswerOptions = {}): AsyncGenerator<string, Answer, void> {
    return this.#answer(() => this.#messages.slice(0, this.#lastUser() + 1), options);
  }

  /** Says something in place of the last message. @throws as `regenerate` */
  edit(text: string, options: AnswerOptions = {}): AsyncGenerator<string, Answer, void> {
    return this.#answer(() => [...this.#messages.slice(0, this.#lastUser()), { role: 'user', content: text }], options);
  }

  /**
   * Keeps only some of the messages, as `slice` does, and the system prompt.
   * @throws {ArgumentError} while an answer is given
   */
  keep(begin: number, end = this.#messages.length): void {
    if (this.#answering) throw busy();
    this.#messages = this.#messages.slice(begin, end);
  }

  /**
   * How many of the oldest messages to forget so that some text can be said with a quarter of the context left, or all of them if that is not enough.
   * @param edit whether it is said in place of the last message
   * @returns the messages, and the tokens that would have to be run
   */
  async toForget(text: string, edit = false): Promise<{ messages: number; tokens: number }> {
    const said: readonly ChatMessage[] = [...this.#messages.slice(0, edit ? this.#lastUser() : undefined), { role: 'user', content: text }];
    const turns = said.flatMap(({ role }, at) => (role === 'user' && at > 0 ? [at] : []));
    for (const messages of turns) {
      const ids = idsOf(await this.#passagesOf(said.slice(messages)));
      const fits = ids.length <= 0.75 * this.checkpoints.context;
      if (fits || messages === turns.at(-1)) return { messages, tokens: ids.length - this.checkpoints.longestPrefix(ids) };
    }
    return { messages: 0, tokens: 0 };
  }

  /** What is needed to go on elsewhere. */
  record(): ConversationRecord {
    const [messages, passages, seed, answers] = [this.#messages, this.#passages, this.#seed, this.#answers];
    return { messages, system: this.system, sampling: this.sampling, seed, answers, passages };
  }

  /**
   * Goes on with what another conversation was.
   * @param state what the caches held then, and of which tokens; null to run them again with the next answer
   * @throws {ArgumentError} while an answer is given, and when the state does not fit the model; then nothing is changed
   */
  resume({ messages, system, sampling, seed, answers, passages }: ConversationRecord, state: ConversationState | null): void {
    if (this.#answering) throw busy();
    if (state === null) this.checkpoints.reset();
    else this.checkpoints.restore(state.snapshot, state.tokens);
    [this.#messages, this.system, this.sampling] = [messages, system, sampling];
    [this.#seed, this.#answers, this.#passages] = [seed, answers, passages];
  }

  async *#answer(messagesOf: () => readonly ChatMessage[], options: AnswerOptions): AsyncGenerator<string, Answer, void> {
    if (this.#answering) throw busy();
    this.#answering = true;
    try {
      return yield* this.#generate(messagesOf(), options);
    } finally {
      this.#answering = false;
    }
  }

  async *#generate(messages: readonly ChatMessage[], { onPrompt, ...options }: AnswerOptions): AsyncGenerator<string, Answer, void> {
    const begin = performance.now();
    const passages = await this.#passagesOf(messages);
    const prompt = idsOf(passages);
    this.#checkRoom(prompt.length);
    const opening = thinkingOpening(passages.at(-1)!.text);
    const cached = this.checkpoints.begin(prompt, this.#markOf(passages));
    onPrompt?.({ opening, tokens: prompt.length, cached_tokens: cached });

    const decoder = this.#tokenizer.streamingDecoder();
    const tokens: number[] = [];
    let [text, first] = ['', 0];
    const seed = BigInt.asUintN(64, this.#seed + BigInt(this.#answers));
    const { vocab_size } = this.#tokenizer;
    const rules = { ...this.#rules, ...options, eos_token_id: this.#eos };
    const ids = generate(this.checkpoints, prompt, { ...this.sampling, ...rules, vocab_size, seed, cached });
    try {
      let step = await ids.next();
      for (; !step.done; step = await ids.next()) {
        if (tokens.length === 0) first = performance.now();
        tokens.push(step.value);
        if (this.#eos.includes(step.value)) continue;
        const piece = decoder.push(step.value);
        text += piece;
        if (piece !== '') yield piece;
      }
      const rest = decoder.flush();
      text += rest;
      if (rest !== '') yield rest;
      const end = performance.now();
      if (tokens.length === 0) first = end;
      const context_full = step.value === 'length' && prompt.length + tokens.length === this.checkpoints.context;
      const times = { prefill_ms: first - begin, decode_ms: end - first };
      return { tokens, text, finish_reason: step.value, context_full, prompt_tokens: prompt.length, cached_tokens: cached, ...times };
    } finally {
      if (tokens.length > 0) this.#commit(messages, passages, opening, tokens);
    }
  }

  #commit(messages: readonly ChatMessage[], passages: readonly Passage[], opening: string, tokens: readonly number[]): void {
    // The end of a turn is the template's to write.
    const ids = this.#eos.includes(tokens.at(-1)!) ? tokens.slice(0, -1) : tokens;
    const text = this.#tokenizer.decode(ids);
    this.#messages = [...messages, { role: 'assistant', content: opening + text }];
    this.#passages = [...passages, { text, ids, generated: true }];
    this.#answers += 1;
    this.checkpoints.keep();
  }

  async #passagesOf(messages: readonly ChatMessage[]): Promise<Passage[]> {
    const all = this.system === null ? messages : [{ role: 'system', content: this.system }, ...messages];
    const marked = await renderMarkedChat(this.#tokenizer, this.#template, { messages: all, add_generation_prompt: true });
    return weave(this.#tokenizer, this.#passages, marked);
  }

  /**
   * Where the model will be taken back to: before the token that begins the answer's turn. Then an answer can be given anew for the few tokens of that
   * beginning, and a template that writes the turn otherwise once it is over, without its reasoning, costs no more than the turn.
   */
  #markOf(passages: readonly Passage[]): number {
    const { ids } = passages.at(-1)!;
    const length = passages.reduce((sum, passage) => sum + passage.ids.length, 0);
    const turn = length - ids.length + ids.findLastIndex((id) => this.#tokenizer.specialIds.has(id));
    return turn >= length - ids.length && turn > 0 ? turn : length - 1;
  }

  #lastUser(): number {
    const at = this.#messages.findLastIndex(({ role }) => role === 'user');
    if (at >= 0) return at;
    throw new ArgumentError({ where: 'conversation', expected: 'a message to answer', found: 'none', fix: 'Say something first.' });
  }

  #checkRoom(prompt: number): void {
    const { context } = this.checkpoints;
    if (prompt + this.least_room <= context) return;
    throw new RuntimeLimitError({
      where: 'context',
      expected: `room for an answer of ${this.least_room} tokens in a context of ${context}`,
      found: `${prompt} tokens in the conversation`,
      fix: 'Forget the oldest turns, begin anew, or load the model with a longer context.',
    });
  }
}

function busy(): ArgumentError {
  const fix = 'Take all of one answer, or leave its iterator, before the next.';
  return new ArgumentError({ where: 'conversation', expected: 'one answer at a time', found: 'another that has not ended', fix });
}
