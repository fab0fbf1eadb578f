import { encodeMarked, SPECIAL_MARK } from '../chat_template.ts';
import type { Tokenizer } from '../tokenizer.ts';

/** A part of a conversation as the model has seen it: text of the template and the messages in it, or an answer that the model generated. */
export interface Passage {
  /** Marked, as `renderMarkedChat` gives it; an answer's is what its ids decode to. */
  readonly text: string;
  readonly ids: readonly number[];
  /** Whether the ids are a model's own, which need not be those of the tokenizer for the same text. */
  readonly generated: boolean;
}

/**
 * Turns a conversation's text into passages that use the ids of earlier ones for as long as the text is the same. So an answer keeps the ids that the
 * model gave it, for which there are keys and values and a state; where the text parts from what was said before, it is encoded anew.
 * @param before the passages so far
 * @param marked the whole conversation, as the template writes it now
 */
export function weave(tokenizer: Tokenizer, before: readonly Passage[], marked: string): Passage[] {
  const passages: Passage[] = [];
  let at = 0;
  for (const passage of before) {
    const length = lengthThere(passage, marked, at);
    if (length === null || at + length === marked.length) break;
    passages.push(passage);
    at += length;
  }
  const text = marked.slice(at);
  return [...passages, { text, ids: encodeMarked(tokenizer, text), generated: false }];
}

/** The token ids of passages, one after the other. */
export function idsOf(passages: readonly Passage[]): number[] {
  return passages.flatMap(({ ids }) => ids);
}

/**
 * How much of a text at some place a passage stands for; null if it is not there. Templates trim answers: the spaces that a model began or ended its
 * own with are not worth running it again.
 */
function lengthThere({ text, generated }: Passage, marked: string, at: number): number | null {
  if (marked.startsWith(text, at)) return text.length;
  if (!generated) return null;
  const trimmed = [text.trimEnd(), text.trim()].find((shorter) => marked.startsWith(shorter + SPECIAL_MARK, at));
  return trimmed?.length ?? null;
}
